//! The enclave gets the machine, processors and memory requested from `run`. And the host's time.

use std::fs;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloister_wire::ports;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::guest::print;
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "an_enclave_gets_the_requested_machine_cpus_and_memory", host, guest };

/// How much of a machine's memory the kernel may use, in MiB (docs/kernel.md: 22 MB reserved, and tables that grow with it).
const KEPT: u64 = 48;

/// How far the enclave's clock may be behind the host's, in milliseconds: two seconds that a machine's clock without fractions
/// of a second costs (docs/init.md), and what an emulated kernel on a busy host loses before its clock ticks.
const BEHIND: i128 = 5000;

/// How far it may be ahead: only by the time that the first status took to reach the host.
const AHEAD: i128 = 1000;

/// What is known about the date of such a machine: its host states it.
const TIME: &str = r#"{"trusted":false,"source":"host"}"#;

fn host(lab: &mut Lab) -> Outcome {
    let image = lab.image("{version: 1, services: {web: {command: [PROBE], restart: never}}}")?;
    for (machine, cpus, memory) in [("microvm", 1, 256), ("microvm", 3, 640), ("q35", 2, 384)] {
        let args = ["--machine", machine, "--cpus", &cpus.to_string(), "--memory", &format!("{memory}MiB")];
        let mut web = lab.run(&image, &[args.as_slice(), &["--replace"]].concat())?;
        let ended = web.finish()?;
        ended.expect_code(42)?;
        let [found_cpus, found_memory, booted] = numbers(&ended.stdout)?;
        expect_eq(&found_cpus, &cpus, &format!("processors of {machine}"))?;
        expect(
            (memory - KEPT..=memory).contains(&found_memory),
            format_args!("{machine} with {memory} MiB has {found_memory} MiB"),
        )?;
        let inspected = web.inspect()?;
        expect_in(&inspected.to_string(), machine, "the record")?;
        expect_at(&inspected, "/cpus", cpus)?;
        expect_at(&inspected, "/memory", memory << 20)?;
        expect_at(&inspected, "/status/time", serde_json::from_str::<Value>(TIME)?)?;
        expect_in(&ended.stdout, TIME, "what a program inside is told about the date")?;
        let shown = web.command(&["inspect", "web"])?;
        expect_in(&shown.stdout, "trusted: no, source: host, bound: none", "host-sleeve inspect web")?;
        let seen = inspected.pointer("/booted_ms").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let behind = i128::from(seen).saturating_sub(i128::from(booted));
        expect(
            (-AHEAD..=BEHIND).contains(&behind),
            format_args!("{machine} is {behind} ms behind the host"),
        )?;
    }
    Ok(())
}

/// Processors, memory in MiB, and the date of the guest's boot in milliseconds since 1970, as printed by the guest.
fn numbers(text: &str) -> Result<[u64; 3], Failure> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(cpus)), Some(Ok(memory)), Some(Ok(booted))) => Ok([cpus, memory, booted]),
        _ => Err(Failure::failed(format_args!("unexpected guest output {text:?}"))),
    }
}

fn guest(_args: &[String]) -> ExitCode {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("processor\t:").count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
    let time = time().unwrap_or_else(|error| error.to_string());
    let printed =
        print(format!("{cpus} {} {}\n{time}", kib.unwrap_or_default() >> 10, booted_ms()).as_bytes());
    if printed.is_ok() { ExitCode::from(42) } else { ExitCode::FAILURE }
}

/// What the supervisor states about the date.
fn time() -> std::io::Result<String> {
    let mut line = String::new();
    let address = SocketAddr::from_abstract_name(ports::LOCAL_TIME)?;
    UnixStream::connect_addr(&address)?.read_to_string(&mut line)?;
    Ok(line)
}

/// The date at which the guest's clock since boot was zero.
fn booted_ms() -> u128 {
    let uptime = clock_gettime(ClockId::Monotonic);
    let seconds = Duration::from_secs(u64::try_from(uptime.tv_sec).unwrap_or_default());
    let uptime =
        seconds.saturating_add(Duration::from_nanos(u64::try_from(uptime.tv_nsec).unwrap_or_default()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(uptime).as_millis()
}
