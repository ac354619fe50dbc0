//! A servant as the servant itself and the kernel see it. The supervisor of this machine is a test program
//! (`init/examples/trial-servants.rs`), which prints each fact on the console.

use crate::facts::fact;
use crate::guest::no_guest;
use crate::lab::Release;
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "a_servant_sees_nothing_and_holds_only_its_descriptors",
    host: servants,
    guest: no_guest,
};

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// What the servant finds. Descriptors: stdin, stdout, stderr and the 200 that it received, and no other.
const SEEN: &[(&str, &str)] = &[
    ("servant: names in the root", "0"),
    ("servant: working directory", "\"/\""),
    (
        "servant: making a directory",
        "Some(Os { code: 30, kind: ReadOnlyFilesystem, message: \"Read-only file system\" })",
    ),
    ("servant: pid", "1"),
    ("servant: environment", "A=b"),
    ("servant: open descriptors", "(Some(0), Some(202), 203)"),
    ("servant: descriptors with what was given", "200"),
];

/// Paths that it cannot open.
const MISSING: &[&str] =
    &["/proc/self/status", "/dev/null", "/sys/fs/cgroup", "/sbin/supervisor", "/../init", "/tmp"];

/// What the kernel shows of it. It has no supplementary groups and no capabilities of any kind.
const SHOWN: &[(&str, &str)] = &[
    ("Uid", "4242 4242 4242 4242"),
    ("Gid", "4243 4243 4243 4243"),
    ("Groups", ""),
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
    ("mnt namespace", "its own"),
    ("pid namespace", "its own"),
    ("ipc namespace", "its own"),
    ("uts namespace", "its own"),
    ("cgroup namespace", "its own"),
    ("net namespace", "shared"),
    ("mounts", "1"),
    ("descriptors", "203"),
    ("cgroup", "0::/servants/@trial"),
    ("memory.max", "16777216"),
    ("memory.oom.group", "1"),
    ("pids.max", "7"),
    ("oom_score_adj", "0"),
];

/// What a second supervisor receives after a crash of the first: everything that init holds, which is more descriptors than one
/// message carries, and the servant with its two pipes.
const HANDED_OVER: &[(&str, &str)] =
    &[("stashes", "256"), ("stashes with their own content", "256"), ("held", "@trial true 2")];

/// Exits and failed starts. The filter kills with SIGSYS, before the program's first instruction if it does not allow the exec.
const ENDS: &[(&str, &str)] = &[
    ("end of @trial", "Signal { signal: 9, cause: Sent }"),
    ("start of @missing", "exec 2 exec: /sbin/none: No such file or directory (os error 2)"),
    ("start of plain", "name 22 names of servants, and no others, begin with @"),
    ("start of @no-exec", "exec 10 exec: ended before its program ran: killed by signal 31"),
];

fn servants(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_trial_servants();
    let image = lab.image_on(&release, MANIFEST)?;
    let mut web = lab.run(&image, &[])?;
    web.finish()?.expect_code(0)?;
    let console = web.command(&["logs", "web", "--console"])?.stdout;
    for (name, value) in [SEEN, SHOWN, HANDED_OVER, ENDS].concat() {
        expect_eq(&fact(&console, name)?, &value, name)?;
    }
    expect_in(
        fact(&console, "end of @refused")?,
        "signal: 31, cause: Seccomp(Some(",
        "a call that is not allowed",
    )?;
    for path in MISSING {
        let name = format!("servant: opening {path}");
        let error = fact(&console, &name)?;
        expect(error.contains("code: 2,"), format_args!("{name}: {error}"))?;
    }
    Ok(())
}
