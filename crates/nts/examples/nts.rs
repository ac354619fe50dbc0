//! A client of one NTS server that does what its standard input says, for scripts/nts-check.
//!
//! ```text
//! nts ADDRESS NAME ROOT     the address of key exchanges, the name in the certificate, a root certificate as DER
//!
//! exchange                  exchanges keys            ok cookies=8 port=123
//! query [PORT [SHIFT]]      asks the NTP server       ok offset=NS bound=NS round_trip=NS stratum=1 cookies=8
//! ```
//!
//! PORT replaces the one that was negotiated (0: that one). SHIFT, in nanoseconds, is added to the clock that is read. Each line is
//! answered by one, `ok …` or `error: …`. The NTP server must be at the address of the key exchange: names are not resolved.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloister_clock::{Date, EARLIEST, Offset};
use cloister_nts::{Association, client};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::DefaultTimeProvider;
use rustls::{ClientConfig, RootCertStore};

/// For a key exchange: on loopback it takes milliseconds, and more on a busy machine.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(2);

/// For an answer; tests wait for it.
const QUERY_LIMIT: Duration = Duration::from_millis(500);

type Anything = Box<dyn Error>;

struct Client {
    config: Arc<ClientConfig>,
    address: SocketAddr,
    name: ServerName<'static>,
    association: Option<Association>,
}

fn main() -> Result<(), Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, root] = arguments.as_slice() else {
        return Err("usage: nts ADDRESS NAME ROOT".into());
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(root)?))?;
    let mut client = Client {
        config: Arc::new(client::config(roots, Arc::new(DefaultTimeProvider))?),
        address: address.parse()?,
        name: name.clone().try_into()?,
        association: None,
    };
    for line in io::stdin().lock().lines() {
        let answer = match client.perform(&line?) {
            Ok(done) => format!("ok {done}"),
            Err(error) => format!("error: {error}"),
        };
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

impl Client {
    fn perform(&mut self, line: &str) -> Result<String, Anything> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["exchange"] => self.exchange(),
            ["query"] => self.query(0, 0),
            ["query", port] => self.query(port.parse()?, 0),
            ["query", port, shift] => self.query(port.parse()?, shift.parse()?),
            _ => Err("unknown command".into()),
        }
    }

    fn exchange(&mut self) -> Result<String, Anything> {
        let (config, name) = (Arc::clone(&self.config), self.name.clone());
        let association = client::exchange(config, name, self.address, EXCHANGE_LIMIT)?;
        let done = format!("cookies={} port={}", association.cookies(), association.port());
        self.association = Some(association);
        Ok(done)
    }

    fn query(&mut self, port: u16, shift: i64) -> Result<String, Anything> {
        let association = self.association.as_mut().ok_or("no key exchange was made")?;
        if let Some(server) = association.server().filter(|server| *server != self.address.ip().to_string()) {
            return Err(format!("the server names another one: {server}").into());
        }
        let port = if port == 0 { association.port() } else { port };
        let address = SocketAddr::new(self.address.ip(), port);
        let clock = || now().plus(Offset::from_nanos(shift));
        let (answer, reading) = client::query(association, address, QUERY_LIMIT, clock)?;
        Ok(format!(
            "offset={} bound={} round_trip={} stratum={} cookies={}",
            reading.offset.nanos(),
            reading.bound.as_nanos(),
            reading.round_trip.as_nanos(),
            answer.stratum,
            association.cookies()
        ))
    }
}

/// The system's date; the earliest plausible one if it is out of range.
fn now() -> Date {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Date::from_parts(seconds, since.subsec_nanos().into()).unwrap_or(EARLIEST)
}
