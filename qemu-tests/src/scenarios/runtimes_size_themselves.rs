//! Language runtimes size their heaps and pools by the limits of their service, as far as they read them.

use crate::guest::no_guest;
use crate::scenario::{Failure, expect, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "runtimes_size_themselves_by_their_services_limits", host, guest: no_guest };

/// Debian 12's Java 17, Node.js 18 and Python 3.11, each in a service that has less than the machine. Java reads the limits
/// twice, in the virtual machine and in its class library, and prints both.
const MANIFEST: &str = r"
version: 1
services:
  java:
    kind: job
    command: [/usr/lib/jvm/java-17-openjdk-amd64/bin/java, -XshowSettings:all, -version]
    limits: {memory: 256MiB, cpu: 1}
  node:
    kind: job
    command:
      - /usr/bin/node
      - -p
      - '`node heap ${Math.floor(v8.getHeapStatistics().heap_size_limit / 1048576)} cpus ${os.cpus().length}.`'
    limits: {memory: 256MiB, cpu: 1}
  python:
    kind: job
    command:
      - /usr/bin/python3
      - -c
      - import os; print('python cpus ' + str(os.cpu_count()) + '.')
    limits: {memory: 256MiB, cpu: 1}
";

/// Processors of the machine: more than a service may use, to distinguish the two.
const CPUS: &str = "2";

/// A service's memory in MiB.
const LIMIT: u64 = 256;

fn host(lab: &mut Lab) -> Outcome {
    let root = lab.input("runtimes")?;
    let image = lab.build_from(&format!("dir:{root}"), MANIFEST)?;
    let mut web = lab.run(&image, &["--cpus", CPUS])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    let output = format!("{}{}", ended.stdout, ended.stderr);
    expect_in(&output, "Provider: cgroupv2", "Java's source of its limits")?;
    expect_in(&output, "Memory Limit: 256.00M", "the limit that Java finds")?;
    expect_in(&output, "Effective CPU Count: 1", "the processors that Java finds")?;
    // Half of what a small service has (MinRAMPercentage), and none of the machine's.
    let heap = number_after(&output, "Max. Heap Size (Estimated): ")?;
    expect(heap <= LIMIT / 2, format_args!("Java's heap has {heap} MiB of {LIMIT}:\n{output}"))?;
    let heap = number_after(&output, "node heap ")?;
    // Neither of them reads cgroup v2: docs/runtimes.md states that, and the workaround.
    expect(heap > LIMIT, format_args!("Node's heap has {heap} MiB, within the service's limit:\n{output}"))?;
    expect_in(&output, &format!("node heap {heap} cpus {CPUS}."), "the processors that Node finds")?;
    expect_in(&output, &format!("python cpus {CPUS}."), "the processors that Python finds")
}

/// The whole number that follows `prefix`.
fn number_after(output: &str, prefix: &str) -> Result<u64, Failure> {
    let tail = output.split_once(prefix).map(|(_, tail)| tail);
    let digits = tail.and_then(|tail| tail.split(|c: char| !c.is_ascii_digit()).next());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Failure::failed(format_args!("no number after {prefix:?} in:\n{output}")))
}
