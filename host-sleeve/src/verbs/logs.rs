//! `logs`: what the services of an enclave said, or its console.

use std::io::{self, Write};

use crate::cli::Logs;
use crate::error::{Error, Result};
use crate::logbook::lines::{Look, Printer};
use crate::logbook::reader::{Reader, Wake};
use crate::logbook::{CONSOLE, SERVICES};
use crate::output::quiet_if_gone;
use crate::sleeve::requests::Client;
use crate::state::record::Seen;
use crate::state::{Folder, Root};

use super::DONE;
use super::follow::{JsonLines, Records, Sink, Tail, follow};

/// Prints a log.
pub(crate) fn logs(asked: &Logs, json: bool) -> Result<u8> {
    let folder = Root::open()?.find(&asked.name)?;
    let seen = folder.must_see()?;
    if let Some(service) = &asked.service {
        known(&seen, service)?;
    }
    let printed =
        if asked.console { console(&folder, asked.follow) } else { services(&folder, &seen, asked, json) };
    quiet_if_gone(printed)?;
    Ok(DONE)
}

fn known(seen: &Seen, service: &str) -> Result<()> {
    let names: Vec<&str> =
        seen.record.status.iter().flat_map(|status| &status.services).map(|s| s.name.as_str()).collect();
    if names.is_empty() || names.contains(&service) {
        return Ok(());
    }
    Err(Error::operator(format!("{} has no service {service}", seen.record.name))
        .hint(format!("its services: {}", names.join(", "))))
}

fn services(folder: &Folder, seen: &Seen, asked: &Logs, json: bool) -> io::Result<()> {
    let count = seen.record.status.as_ref().map_or(0, |status| status.services.len());
    let look = Look {
        service: asked.service.clone(),
        names: count > 1 && asked.service.is_none(),
        times: seen.record.booted_ms.filter(|_| asked.timestamps || json),
    };
    let out = io::BufWriter::new(io::stdout());
    let mut sink: Box<dyn Sink> = if json {
        Box::new(JsonLines::new(look, out))
    } else {
        Box::new(Printer::new(look, out, io::stderr()))
    };
    let sleeve = Client::connect(folder).ok().flatten().filter(|_| asked.follow);
    match (asked.tail, sleeve) {
        (None, Some(sleeve)) => follow(folder.path(), SERVICES, sleeve.into_stream(), sink.as_mut()),
        (None, None) => Records::open(&folder.file(SERVICES)).drain(sink.as_mut()),
        (Some(wanted), sleeve) => {
            let mut records = Records::open(&folder.file(SERVICES));
            let mut tail = Tail::new(wanted, asked.service.clone());
            let wake =
                sleeve.map(|sleeve| Wake::new(folder.path(), Some(sleeve.into_stream()))).transpose()?;
            records.drain(&mut tail)?;
            tail.hand_to(sink.as_mut())?;
            records.drain(sink.as_mut())?;
            let Some(mut wake) = wake else { return Ok(()) };
            while wake.wait()? {
                records.drain(sink.as_mut())?;
            }
            records.drain(sink.as_mut())
        }
    }
}

fn console(folder: &Folder, follow: bool) -> io::Result<()> {
    let sleeve = Client::connect(folder).ok().flatten().filter(|_| follow);
    let mut wake = sleeve.map(|sleeve| Wake::new(folder.path(), Some(sleeve.into_stream()))).transpose()?;
    let mut reader = Reader::open(&folder.file(CONSOLE));
    let mut out = io::stdout();
    copy(&mut reader, &mut out)?;
    let Some(wake) = wake.as_mut() else { return Ok(()) };
    while wake.wait()? {
        copy(&mut reader, &mut out)?;
    }
    copy(&mut reader, &mut out)
}

fn copy(reader: &mut Reader, out: &mut impl Write) -> io::Result<()> {
    loop {
        let (piece, _) = reader.next_piece()?;
        if piece.is_empty() {
            return out.flush();
        }
        out.write_all(piece)?;
    }
}
