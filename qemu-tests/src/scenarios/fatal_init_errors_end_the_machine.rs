//! When PID 1 encounters a fatal error, the machine powers off, and the reason is on the console, in the status and in the error
//! of the command that ran it.

use std::path::Path;

use serde_json::Value;

use crate::guest::no_guest;
use crate::lab::{Release, Running};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// A ramdisk without its supervisor.
pub(super) const NO_SUPERVISOR: Scenario = Scenario {
    name: "a_missing_supervisor_is_a_fatal_state_that_names_it",
    host: no_supervisor,
    guest: no_guest,
};

/// A mount that fails.
pub(super) const NO_MOUNT: Scenario =
    Scenario { name: "a_failed_mount_ends_the_boot_and_is_named", host: no_mount, guest: no_guest };

/// A panic of PID 1.
pub(super) const PANIC: Scenario =
    Scenario { name: "a_panic_of_init_powers_off_and_reports_the_reason", host: panics, guest: no_guest };

/// A kernel without an init that stays alive.
pub(super) const NO_INIT: Scenario =
    Scenario { name: "a_kernel_without_init_panics_and_the_run_reports_it", host: no_init, guest: no_guest };

/// Random bits that cannot be trusted.
pub(super) const NO_ENTROPY: Scenario = Scenario {
    name: "without_the_platforms_random_generator_nothing_starts",
    host: no_entropy,
    guest: no_guest,
};

/// A clock source that the platform must not use.
pub(super) const OTHER_CLOCK: Scenario = Scenario {
    name: "a_clock_source_of_the_host_is_replaced_or_refused",
    host: other_clock,
    guest: no_guest,
};

/// A machine that the manifest does not allow, which the host cannot know.
pub(super) const OTHER_PLATFORM: Scenario = Scenario {
    name: "on_a_platform_that_the_manifest_does_not_allow_nothing_starts",
    host: other_platform,
    guest: no_guest,
};

fn other_platform(lab: &mut Lab) -> Outcome {
    // The host's check passes, since its backend is virtual. Inside, init reports another platform: a host that starts the image
    // on other hardware than it states looks like this.
    let manifest = "{version: 1, platforms: [virtual, tdx], services: {web: {command: [PROBE]}}, ingress: [{port: 80, service: web, target: 8080}]}";
    let release = Release::default().with_trial("snp");
    let reason = "this machine's platform is snp, and the image's manifest allows only tdx and virtual";
    let image = lab.image_on(&release, manifest)?;
    let web = fatal_of(lab, &image, "platform", reason)?;
    let inspected = web.inspect()?;
    expect_at(&inspected, "/status/platform", "snp")?;
    for list in ["services", "servants"] {
        let started = inspected.pointer(&format!("/status/{list}")).and_then(Value::as_array);
        expect(started.is_none_or(Vec::is_empty), format_args!("{list} in the status: {started:?}"))?;
    }
    Ok(())
}

fn no_supervisor(lab: &mut Lab) -> Outcome {
    let release = Release::default().without("/sbin/supervisor");
    fatal(lab, &release, "supervisor", "/sbin/supervisor: No such file or directory")
}

fn no_mount(lab: &mut Lab) -> Outcome {
    // A file where a directory must be: the mount's target cannot be created. The first mount also blocks /proc, /dev and the
    // kernel's log; the second fails when all of these exist.
    fatal(lab, &Release::default().with_file_at("/proc"), "mounts", "cannot mount /proc: File exists")?;
    fatal(lab, &Release::default().with_file_at("/tmp"), "mounts", "cannot mount /tmp: File exists")
}

fn panics(lab: &mut Lab) -> Outcome {
    fatal(lab, &Release::default().with_trial("panic-first"), "init", "before anything was mounted")?;
    fatal(lab, &Release::default().with_trial("panic-late"), "init", "a \"quoted\" reason\nof two lines")
}

fn no_entropy(lab: &mut Lab) -> Outcome {
    // Nothing here can make the processor's instructions fail. This machine is made to believe that it is another platform,
    // whose generator it lacks.
    let reason = "the kernel's hardware generator is \"none\", but on Nitro it must be \"nsm-hwrng\"";
    fatal(lab, &Release::default().with_trial("nitro"), "entropy", reason)
}

fn other_clock(lab: &mut Lab) -> Outcome {
    // Without the processor's counter, a machine that must use it does not boot.
    let reason = "the clock source is \"acpi_pm\", but on snp it must be tsc";
    fatal(lab, &Release::default().with_trial("only-other-clock"), "clock", reason)?;
    // With it, it is selected. Only this machine has a second source.
    let image = lab.image_on(&Release::default().with_trial("other-clock"), MANIFEST)?;
    let mut web = lab.run(&image, &["--replace", "--machine", "q35"])?;
    web.finish()?;
    let console = web.command(&["logs", "web", "--console"])?;
    expect_in(&console.stdout, "(tsc selected, was acpi_pm)", "the console")?;
    expect_in(&console.stdout, "serve: done", "the console")
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
        expect_in(&ended.stderr, "guest kernel panicked", "the reason")?;
        expect_in(&ended.stderr, reason, "the reason")?;
    }
    Ok(())
}

/// Boots `release`, and expects `stage` and `reason` everywhere.
fn fatal(lab: &mut Lab, release: &Release, stage: &str, reason: &str) -> Outcome {
    let image = lab.image_on(release, MANIFEST)?;
    fatal_of(lab, &image, stage, reason).map(drop)
}

/// Boots `image`, and expects `stage` and `reason` everywhere.
fn fatal_of(lab: &Lab, image: &Path, stage: &str, reason: &str) -> Result<Running, Failure> {
    let mut web = lab.run(image, &["--replace"])?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, &format!("web failed: {stage}: "), "the error")?;
    expect_in(&ended.stderr, first_line(reason), "the error")?;
    let inspected = web.inspect()?;
    for place in ["/status", "/end/final"] {
        let field = |field: &str| {
            let value = inspected.pointer(&format!("{place}/{field}"));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        expect_eq(&field("state"), &"fatal".to_owned(), place)?;
        expect_eq(&field("stage"), &stage.to_owned(), place)?;
        expect_in(&field("error"), reason, place)?;
    }
    let console = web.command(&["logs", "web", "--console"])?;
    expect_in(&console.stdout, "cloister: end {\"state\":\"fatal\"", "the console")?;
    let quoted = serde_json::to_string(first_line(reason))?;
    expect_in(&console.stdout, quoted.trim_matches('"'), "the console")?;
    Ok(web)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
