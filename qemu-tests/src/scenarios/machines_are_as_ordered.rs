//! What `run` is asked for is what the enclave gets: its machine, its processors, its memory.

use std::fs;
use std::process::ExitCode;

use crate::guest::say;
use crate::story::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "an_enclave_gets_the_machine_cpus_and_memory_that_were_asked_for", host, guest };

/// What the kernel may keep of a machine's memory, in MiB (docs/kernel.md: 22 MB reserved, and tables that grow with it).
const KEPT: u64 = 48;

fn host(lab: &mut Lab) -> Outcome {
    let image = lab.image("{version: 1, services: {web: {command: [PROBE], restart: never}}}")?;
    for (machine, cpus, memory) in [("microvm", 1, 256), ("microvm", 3, 640), ("q35", 2, 384)] {
        let words = ["--machine", machine, "--cpus", &cpus.to_string(), "--memory", &format!("{memory}MiB")];
        let mut web = lab.run(&image, &[words.as_slice(), &["--replace"]].concat())?;
        let ended = web.finish()?;
        ended.expect_code(42)?;
        let [found_cpus, found_memory] = numbers(&ended.stdout)?;
        expect_eq(&found_cpus, &cpus, &format!("processors of {machine}"))?;
        expect(
            (memory - KEPT..=memory).contains(&found_memory),
            format_args!("{machine} with {memory} MiB has {found_memory} MiB"),
        )?;
        let inspected = web.inspect()?;
        expect_in(&inspected.to_string(), machine, "the record")?;
        expect_at(&inspected, "/cpus", cpus)?;
        expect_at(&inspected, "/memory", memory << 20)?;
    }
    Ok(())
}

/// Processors, and memory in MiB, as the guest said them.
fn numbers(said: &str) -> Result<[u64; 2], Failure> {
    let mut numbers = said.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(cpus)), Some(Ok(memory))) => Ok([cpus, memory]),
        _ => Err(Failure::broken(format_args!("the guest said {said:?}"))),
    }
}

fn guest(_words: &[String]) -> ExitCode {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("processor\t:").count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
    let told = say(format!("{cpus} {}\n", kib.unwrap_or_default() >> 10).as_bytes());
    if told.is_ok() { ExitCode::from(42) } else { ExitCode::FAILURE }
}
