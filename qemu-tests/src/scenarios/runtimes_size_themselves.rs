//! Language runtimes size their heaps and pools by the limits of their service, as far as they look at them.

use crate::guest::nobody;
use crate::story::{Failure, expect, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "runtimes_size_themselves_by_the_limits_of_their_service", host, guest: nobody };

/// Debian 12's Java 17, Node.js 18 and Python 3.11, each in a service that has less than the machine. Java looks at the
/// limits twice, in the virtual machine and in its class library, and prints both.
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

/// Processors of the machine: more than a service may use, so that the two can be told apart.
const CPUS: &str = "2";

/// A service's memory in MiB.
const LIMIT: u64 = 256;

fn host(lab: &mut Lab) -> Outcome {
    let root = lab.input("runtimes")?;
    let image = lab.build_from(&format!("dir:{root}"), MANIFEST)?;
    let mut web = lab.run(&image, &["--cpus", CPUS])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    let said = format!("{}{}", ended.stdout, ended.stderr);
    expect_in(&said, "Provider: cgroupv2", "where Java finds its limits")?;
    expect_in(&said, "Memory Limit: 256.00M", "the limit that Java finds")?;
    expect_in(&said, "Effective CPU Count: 1", "the processors that Java finds")?;
    // Half of what a small service has (MinRAMPercentage), and none of the machine's.
    let heap = number_after(&said, "Max. Heap Size (Estimated): ")?;
    expect(heap <= LIMIT / 2, format_args!("Java's heap has {heap} MiB of {LIMIT}:\n{said}"))?;
    let heap = number_after(&said, "node heap ")?;
    // Neither of them looks at cgroup v2: docs/runtimes.md says so, and what to do.
    expect(heap > LIMIT, format_args!("Node's heap has {heap} MiB, which fits into the service:\n{said}"))?;
    expect_in(&said, &format!("node heap {heap} cpus {CPUS}."), "the processors that Node finds")?;
    expect_in(&said, &format!("python cpus {CPUS}."), "the processors that Python finds")
}

/// The whole number that follows `words`.
fn number_after(said: &str, words: &str) -> Result<u64, Failure> {
    let tail = said.split_once(words).map(|(_, tail)| tail);
    let digits = tail.and_then(|tail| tail.split(|c: char| !c.is_ascii_digit()).next());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Failure::broken(format_args!("no number after {words:?} in:\n{said}")))
}
