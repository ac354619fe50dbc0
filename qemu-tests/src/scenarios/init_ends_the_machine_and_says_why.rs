//! Whatever PID 1 cannot go on from, the machine ends, and the reason is on the console, in the status and in the error of
//! the command that ran it.

use serde_json::Value;

use crate::guest::nobody;
use crate::lab::Release;
use crate::story::{expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// The story of a ramdisk without its supervisor.
pub(super) const NO_SUPERVISOR: Scenario = Scenario {
    name: "a_missing_supervisor_is_a_fatal_state_with_its_name",
    host: no_supervisor,
    guest: nobody,
};

/// The story of a mount that fails.
pub(super) const NO_MOUNT: Scenario =
    Scenario { name: "a_mount_that_fails_ends_the_boot_and_is_named", host: no_mount, guest: nobody };

/// The story of a panic of PID 1.
pub(super) const PANIC: Scenario = Scenario {
    name: "a_panic_of_init_powers_off_with_the_reason_on_console_and_in_the_status",
    host: panics,
    guest: nobody,
};

/// The story of a kernel without an init that lives.
pub(super) const NO_INIT: Scenario =
    Scenario { name: "a_kernel_without_an_init_gives_up_and_the_run_says_so", host: no_init, guest: nobody };

/// The story of random bits that cannot be trusted.
pub(super) const NO_ENTROPY: Scenario =
    Scenario { name: "without_the_platforms_generator_nothing_is_started", host: no_entropy, guest: nobody };

fn no_supervisor(lab: &mut Lab) -> Outcome {
    let release = Release::default().without("/sbin/supervisor");
    fatal(lab, &release, "supervisor", "/sbin/supervisor: No such file or directory")
}

fn no_mount(lab: &mut Lab) -> Outcome {
    // A file where a folder must be: the mount's target cannot be made. The first mount takes /proc, /dev and the kernel's
    // log with it, the second comes when all of these are there.
    fatal(lab, &Release::default().with_file_at("/proc"), "mounts", "mounting /proc: File exists")?;
    fatal(lab, &Release::default().with_file_at("/tmp"), "mounts", "mounting /tmp: File exists")
}

fn panics(lab: &mut Lab) -> Outcome {
    fatal(lab, &Release::default().with_trial("panic-first"), "init", "before anything was mounted")?;
    fatal(lab, &Release::default().with_trial("panic-late"), "init", "a \"quoted\" reason\nof two lines")
}

fn no_entropy(lab: &mut Lab) -> Outcome {
    // Nothing here can make the processor's instructions fail; what can be had is a machine that takes itself for another
    // platform, whose own generator it then lacks.
    let reason = "the kernel's hardware generator is \"none\", on Nitro it must be \"nsm-hwrng\"";
    fatal(lab, &Release::default().with_trial("nitro"), "entropy", reason)
}

fn no_init(lab: &mut Lab) -> Outcome {
    for (release, reason) in [
        (Release::default().without("/init"), "No working init found"),
        (Release::default().with_trial("end"), "Attempted to kill init!"),
    ] {
        let image = lab.image_on(&release, MANIFEST)?;
        let mut web = lab.run(&image, &["--replace"])?;
        let ended = web.finish()?;
        ended.expect_code(125)?;
        expect_in(&ended.stderr, "the enclave's kernel gave up", "the reason")?;
        expect_in(&ended.stderr, reason, "the reason")?;
    }
    Ok(())
}

/// Boots `release`, and sees that `stage` and `reason` are told everywhere.
fn fatal(lab: &mut Lab, release: &Release, stage: &str, reason: &str) -> Outcome {
    let image = lab.image_on(release, MANIFEST)?;
    let mut web = lab.run(&image, &["--replace"])?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, &format!("web failed: {stage}: "), "the error")?;
    expect_in(&ended.stderr, first_line(reason), "the error")?;
    let inspected = web.inspect()?;
    for place in ["/status", "/end/final"] {
        let told = |field: &str| {
            let value = inspected.pointer(&format!("{place}/{field}"));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        expect_eq(&told("state"), &"fatal".to_owned(), place)?;
        expect_eq(&told("stage"), &stage.to_owned(), place)?;
        expect_in(&told("error"), reason, place)?;
    }
    let console = web.ask(&["logs", "web", "--console"])?;
    expect_in(&console.stdout, "cloister: end {\"state\":\"fatal\"", "the console")?;
    let quoted = serde_json::to_string(first_line(reason))?;
    expect_in(&console.stdout, quoted.trim_matches('"'), "the console")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
