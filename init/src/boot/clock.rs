//! Stage `clock`: requires the platform's clock source, and a plausible date.
//!
//! Invariant: it never takes a time from the host, and on a platform that defines a clock source the boot ends without it
//! (docs/decisions/011). That the kernel does not leave the counter later is due to `tsc=reliable` in its command line.

use std::fs;
use std::time::Duration;

use cloister_clock::{Date, EARLIEST};
use cloister_sys::platform::Platform;
use rustix::event::Timespec as Pause;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{Boot, BootError, uptime};

/// The clock source in use (`Documentation/ABI/testing/sysfs-devices-clocksource`).
const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The clock sources that the kernel can use.
const AVAILABLE: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

/// The processor's time stamp counter.
const TSC: &str = "tsc";

/// The same counter until the kernel has refined its frequency (`arch/x86/kernel/tsc.c`).
const TSC_EARLY: &str = "tsc-early";

/// How long to wait for [`TSC`] if another source is in use. The kernel registers it when it has refined its frequency, which takes a
/// second and is repeated as often as it is disturbed (`tsc_refine_calibration_work`). Selecting [`TSC_EARLY`] would not last: the
/// kernel removes it then, and uses the source that it rates best.
const REFINED: Duration = Duration::from_secs(5);

/// How often to check for it, in nanoseconds.
const CHECK_NS: i64 = 50_000_000;

/// Returns the clock source, and what was changed. Replaces an implausible date with the earliest plausible one: if the host
/// is that wrong, its date is no basis for a correction.
pub fn check(boot: &mut Boot) -> Result<String, BootError> {
    let platform = boot.platform.unwrap_or(Platform::Virtual);
    let mut found = require(platform)?;
    let now = clock_gettime(ClockId::Realtime);
    if !Date::from_parts(now.tv_sec, now.tv_nsec).is_some_and(Date::is_plausible) {
        clock_settime(ClockId::Realtime, Timespec { tv_sec: EARLIEST.seconds(), tv_nsec: 0 })
            .map_err(|error| BootError::Kernel("cannot set the date", error.into()))?;
        found.push_str(", date reset");
    }
    Ok(found)
}

/// The clock sources that a platform may use, the preferred one first; none if it may use any.
const fn allowed(platform: Platform) -> &'static [&'static str] {
    match platform {
        // Both are the Nitro hypervisor's, which the enclave trusts. Linux itself prefers the counter if the processor states
        // that its rate is constant (`kvmclock_init` in arch/x86/kernel/kvmclock.c).
        Platform::Nitro => &["kvm-clock", TSC],
        // Every other source asks the host.
        Platform::Tdx | Platform::Snp => &[TSC],
        Platform::Virtual => &[],
    }
}

/// Makes the kernel use a source that this platform may use, and returns which one that is.
fn require(platform: Platform) -> Result<String, BootError> {
    let allowed = allowed(platform);
    let before = read(CURRENT)?;
    if is_allowed(&before, allowed) {
        return Ok(before);
    }
    let refused = |found| BootError::ClockSource { platform, found, allowed };
    let better =
        await_better(allowed, REFINED, || read(AVAILABLE))?.ok_or_else(|| refused(before.clone()))?;
    fs::write(CURRENT, better).map_err(|error| BootError::Path(CURRENT, error))?;
    let after = read(CURRENT)?;
    if after == better { Ok(format!("{after} selected, was {before}")) } else { Err(refused(after)) }
}

/// Whether a source in use is one of these, or will be.
fn is_allowed(source: &str, allowed: &[&str]) -> bool {
    let refined = if source == TSC_EARLY { TSC } else { source };
    allowed.is_empty() || allowed.contains(&refined)
}

/// The best source that can be selected, as soon as there is one, or none after `limit`.
fn await_better<F: FnMut() -> Result<String, BootError>>(
    allowed: &[&'static str],
    limit: Duration,
    mut available: F,
) -> Result<Option<&'static str>, BootError> {
    let end = uptime().saturating_add(limit);
    loop {
        let better = better(&available()?, allowed);
        if better.is_some() || uptime() >= end {
            return Ok(better);
        }
        // Interrupted by a signal, it checks earlier.
        let pause = Pause { tv_sec: 0, tv_nsec: CHECK_NS };
        rustix::event::poll(&mut [], Some(&pause)).unwrap_or_default();
    }
}

/// The first of the allowed sources that is available.
fn better(available: &str, allowed: &[&'static str]) -> Option<&'static str> {
    allowed.iter().copied().find(|source| available.split_whitespace().any(|name| name == *source))
}

fn read(path: &'static str) -> Result<String, BootError> {
    let text = fs::read_to_string(path).map_err(|error| BootError::Path(path, error))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use cloister_wire::causes;

    use super::*;

    /// Sources that Linux may use on some machine.
    const SOURCES: [&str; 8] =
        ["kvm-clock", TSC, TSC_EARLY, "hpet", "acpi_pm", "jiffies", "refined-jiffies", "hyperv_clocksource"];

    fn accepted(platform: Platform) -> Vec<&'static str> {
        SOURCES.into_iter().filter(|source| is_allowed(source, allowed(platform))).collect()
    }

    #[test]
    fn each_platform_accepts_its_own_sources_only() {
        assert_eq!(accepted(Platform::Nitro), ["kvm-clock", TSC, TSC_EARLY]);
        assert_eq!(accepted(Platform::Tdx), [TSC, TSC_EARLY]);
        assert_eq!(accepted(Platform::Snp), [TSC, TSC_EARLY]);
        assert_eq!(accepted(Platform::Virtual), SOURCES);
    }

    #[test]
    fn the_preferred_source_that_is_available_is_selected() {
        let nitro = |available| better(available, allowed(Platform::Nitro));
        assert_eq!(nitro("hpet tsc kvm-clock acpi_pm"), Some("kvm-clock"));
        assert_eq!(nitro("hpet tsc"), Some(TSC));
        assert_eq!(nitro("hpet tsc-early"), None);
        assert_eq!(better("kvm-clock hpet", allowed(Platform::Snp)), None);
        assert_eq!(better("", allowed(Platform::Tdx)), None);
    }

    #[test]
    fn a_counter_that_becomes_available_is_waited_for_whatever_is_available_before() {
        // Between the early counter's removal and the registration of the refined one there may be neither.
        let mut reads = ["kvm-clock tsc-early", "kvm-clock hpet", "kvm-clock tsc"].into_iter();
        let next = || Ok(reads.next().unwrap().to_owned());
        assert_eq!(await_better(allowed(Platform::Snp), REFINED, next).unwrap(), Some(TSC));
        let never = || Ok("kvm-clock hpet".to_owned());
        assert_eq!(await_better(allowed(Platform::Snp), Duration::from_millis(1), never).unwrap(), None);
    }

    #[test]
    fn the_command_line_keeps_the_kernel_from_leaving_the_counter() {
        let arguments = include_str!("../../../kernel-config/cmdline.x86_64");
        assert!(arguments.lines().any(|line| line == "tsc=reliable"));
    }

    #[test]
    fn a_refused_source_is_named_with_the_ones_to_use() {
        let error = |platform| {
            let found = "hpet".to_owned();
            causes::line(&BootError::ClockSource { platform, found, allowed: allowed(platform) })
        };
        assert_eq!(error(Platform::Tdx), "the clock source is \"hpet\", but on tdx it must be tsc");
        let nitro = "the clock source is \"hpet\", but on nitro it must be kvm-clock or tsc";
        assert_eq!(error(Platform::Nitro), nitro);
    }
}
