//! The key exchange.
//!
//! Invariant: keys are exported from the connection over which the agreement was made, and only then.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::ClientError;
use super::deadline::{Deadline, Limited, is_expired};
use crate::{ALPN, Association, Exchange, KEY, Keys, REQUEST};

/// The configuration of TLS. `time` states at which date certificates are checked.
///
/// # Errors
/// If rustls refuses its own provider.
pub fn config(roots: RootCertStore, time: Arc<dyn TimeProvider>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), time);
    let builder = builder.with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Exchanges keys with the server at `address`, whose certificate must have this name, within `limit`.
///
/// # Errors
/// If the server is not the required one, is none for NTS, or does not answer in time.
pub fn exchange(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    address: SocketAddr,
    limit: Duration,
) -> Result<Association, ClientError> {
    let deadline = Deadline::after(limit);
    let error = |error| explain(error, limit);
    let socket = TcpStream::connect_timeout(&address, limit).map_err(error)?;
    let mut connection = ClientConnection::new(config, name).map_err(ClientError::Tls)?;
    let mut socket = Limited { socket, deadline };
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(error)?;
    }
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(ClientError::NoNts);
    }
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(&REQUEST).and_then(|()| stream.flush()).map_err(error)?;
    let mut answer = Exchange::default();
    let mut piece = [0; 2048];
    let mut complete = false;
    while !complete {
        let count = match stream.read(&mut piece) {
            // The answer has its own end, so an end without TLS's closing message needs no check.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(error)?,
        };
        if count == 0 {
            break;
        }
        complete = answer.push(piece.get(..count).unwrap_or_default())?;
    }
    let agreement = answer.agreement()?;
    let export = |label: &[u8], context: &[u8]| {
        stream.conn.export_keying_material([0; KEY], label, Some(context)).map_err(ClientError::Tls)
    };
    Ok(Association::new(Keys::export(export)?, agreement))
}

/// The error of TLS in one of the stream, or the expired deadline.
fn explain(error: io::Error, limit: Duration) -> ClientError {
    if is_expired(&error) {
        return ClientError::Deadline(limit, None);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => ClientError::NoNts,
        Some(inner) => ClientError::Tls(inner.clone()),
        None => ClientError::Network(error),
    }
}
