//! The development security module, from a real machine: the guest half is the supervisor, which listens for the sleeve, uses the
//! module with the client for programs inside, and prints the document on the console.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use cloister_nsm::channel::Channel;
use cloister_nsm::{Claims, Module, NsmError};
use cloister_sys::vsock;
use cloister_wire::{event, ports};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::facts::{hex, pieces, print_fact};
use crate::guest::{power_off, print};
use crate::lab::{Release, path_str};
use crate::scenario::{Failure, expect, expect_eq};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "a_virtual_enclave_gets_documents_of_what_was_launched",
    host: documents,
    guest: attestor,
};

const MANIFEST: &str = "{version: 1, platforms: [virtual], services: {web: {command: [PROBE]}}}";

/// PCR16 at the end of the boot: SHA-384 over 48 zeros and the event (docs/measurements.md).
const BOOT_DONE: &str =
    "926da6fdb43e503e03e620270893edc4f3e860722b580a5ed8af5dea3fd216b504322752210a7854de36c43072999853";

/// Bytes of a document on one line of the console, which is cut at some thousand characters.
const LINE: usize = 256;

/// How long the guest waits for the sleeve, which connects within two seconds; a busy host takes longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How often the guest uses the module: on a connection of its own each time, as after a restart of the program.
const CONNECTIONS: usize = 2;

// ---- the host half ----

fn documents(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_guest_as_supervisor(SCENARIO.name);
    let image = lab.image_on(&release, MANIFEST)?;
    let mut web = lab.run(&image, &[])?;
    let ended = web.finish()?;
    let console = web.command(&["logs", "web", "--console"])?.stdout;
    ended.expect_code(0)?;
    expect_eq(&pieces(&console, "extending PCR0"), &"ReadOnlyIndex".to_owned(), "an extension of PCR0")?;
    expect_eq(
        &pieces(&console, "extending PCR16 again"),
        &"ReadOnlyIndex".to_owned(),
        "after a reconnection",
    )?;
    let document = pieces(&console, "document");
    let measured = lab.sleeve(&["measure", path_str(&image)?, "--virtual", "--json"]).finish()?.json()?;
    for register in ["pcr0", "pcr1", "pcr2"] {
        let value = measured.pointer(&format!("/virtual/pcrs/{register}")).and_then(|value| value.as_str());
        contains(&document, value.unwrap_or("no prediction"), register)?;
    }
    contains(&document, BOOT_DONE, "PCR16")?;
    contains(&document, &hex(b"Cloister VIRTUAL development root, not hardware"), "the certificates' name")?;
    contains(&document, &hex(&root(lab)?), "the root certificate")
}

/// The certificate that `virtual-root` writes.
fn root(lab: &Lab) -> Result<Vec<u8>, Failure> {
    let path = lab.folder().join("root.der");
    lab.sleeve(&["virtual-root", "--output", path_str(&path)?]).finish()?.expect_code(0)?;
    Ok(std::fs::read(path)?)
}

fn contains(document: &str, part: &str, what: &str) -> Outcome {
    expect(document.contains(part), format_args!("the document does not contain {what}, {part}:\n{document}"))
}

// ---- the guest half ----

fn attestor(_: &[String]) -> ExitCode {
    let done = attest();
    if let Err(error) = &done {
        // The host half prints the console.
        drop(print(format!("trial: failed: {error}\n").as_bytes()));
    }
    power_off(u8::from(done.is_err()))
}

fn attest() -> Result<(), Box<dyn Error>> {
    let listener = vsock::listen(ports::MODULE, 1)?;
    for connection in 0..CONNECTIONS {
        let channel = Channel::open(accept(&listener)?, "virtual")?;
        let module = Module::over(|request: &[u8]| channel.exchange(request));
        if connection > 0 {
            print_fact("extending PCR16 again", &refusal(module.extend(event::BOOT_REGISTER, b"again")))?;
            continue;
        }
        print_fact("extending PCR0", &refusal(module.extend(0, b"event")))?;
        module.extend(event::BOOT_REGISTER, &event::encode(event::BOOT, &[]))?;
        module.lock(event::BOOT_REGISTER)?;
        for line in module.attest(Claims::default())?.chunks(LINE) {
            print_fact("document", &hex(line))?;
        }
    }
    Ok(())
}

/// The sleeve's connection.
fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let limit = Timespec::try_from(CONNECT_LIMIT).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit))?;
    Ok(vsock::accept(listener)?.0)
}

fn refusal<T>(result: Result<T, NsmError>) -> String {
    match result {
        Ok(_) => "extended".to_owned(),
        Err(NsmError::Refused(reason)) => reason,
        Err(error) => error.to_string(),
    }
}
