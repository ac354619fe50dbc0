//! The confinement of a running service, as the kernel reports it.
//!
//! Invariant: nothing here comes from the manifest; it is what is in effect.

use std::fs;
use std::io;
use std::path::Path;

use cloister_wire::control::{Confinement, bounded};

use crate::world::Paths;

/// The cgroup files that limit a service.
const LIMIT_FILES: [&str; 4] = ["memory.max", "cpu.max", "pids.max", "memory.oom.group"];

/// The rows of `/proc/PID/limits` that Cloister sets.
const LIMIT_ROWS: [&str; 2] = ["Max open files", "Max core file size"];

/// Maximum bytes of JSON for the mounts shown: a frame is bounded, and a service has a dozen. A service that is allowed
/// to mount can create more and longer ones.
const MAX_MOUNTS: usize = 40 * 1024;

/// Maximum bytes of JSON for one path or one list of options.
const MAX_TEXT: usize = 1024;

/// Maximum number of groups shown: Linux allows 65,536 (`NGROUPS_MAX`), an image has a few.
const MAX_GROUPS: usize = 1024;

/// Reads the confinement of process `pid` of `service`.
///
/// # Errors
/// If the process no longer exists.
pub fn inspect(paths: &Paths, service: &str, pid: u32) -> io::Result<Confinement> {
    let process = paths.proc.join(pid.to_string());
    let status = fs::read_to_string(process.join("status"))?;
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let limits = fs::read_to_string(process.join("limits")).unwrap_or_default();
    let oom_score_adj = fs::read_to_string(process.join("oom_score_adj"))?;
    Ok(Confinement {
        service: service.to_owned(),
        pid,
        uids: numbers(&status, "Uid"),
        gids: numbers(&status, "Gid"),
        groups: numbers(&status, "Groups").into_iter().take(MAX_GROUPS).collect(),
        no_new_privs: field(&status, "NoNewPrivs") == "1",
        seccomp: field(&status, "Seccomp").parse().unwrap_or_default(),
        capabilities_bounding: mask(&status, "CapBnd"),
        capabilities_effective: mask(&status, "CapEff"),
        oom_score_adj: oom_score_adj.trim().parse().map_err(io::Error::other)?,
        cgroup: cgroup(&paths.cgroups.join(service)),
        services_memory: services_memory(&paths.cgroups),
        mounts: bounded_mounts(&mounts),
        limits: limits.lines().filter_map(limit).collect(),
    })
}

/// The PID, in its namespace, of a service's program if Cloister's first process is its parent: the first process forks
/// it first.
const BELOW_THE_FIRST: u32 = 2;

/// Maximum number of a service's processes that are searched for its program; it is one of the oldest, which are listed
/// first.
const MAX_SEARCHED: usize = 4096;

/// The process that runs a service's program, if the service's process 1, `first`, is Cloister's. Returns `first` if
/// the program has exited.
#[must_use]
pub fn program_below(paths: &Paths, service: &str, first: u32) -> u32 {
    let list = fs::read_to_string(paths.cgroups.join(service).join("cgroup.procs")).unwrap_or_default();
    let is_program = |pid: &u32| {
        let status = fs::read_to_string(paths.proc.join(pid.to_string()).join("status"));
        status.is_ok_and(|status| {
            numbers(&status, "PPid") == [first] && numbers(&status, "NSpid").last() == Some(&BELOW_THE_FIRST)
        })
    };
    let mut members = list.lines().take(MAX_SEARCHED).filter_map(|line| line.parse().ok());
    members.find(is_program).unwrap_or(first)
}

/// The value of `Key:` in `/proc/PID/status`.
fn field<'a>(status: &'a str, key: &str) -> &'a str {
    let rows = || status.lines().filter_map(|line| line.split_once(':'));
    rows().find(|(k, _)| *k == key).map(|(_, value)| value.trim()).unwrap_or_default()
}

fn numbers(status: &str, key: &str) -> Vec<u32> {
    field(status, key).split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

fn mask(status: &str, key: &str) -> u64 {
    u64::from_str_radix(field(status, key), 16).unwrap_or_default()
}

fn cgroup(folder: &Path) -> Vec<(String, String)> {
    let read = |file: &&str| fs::read_to_string(folder.join(file)).ok().map(|t| t.trim().to_owned());
    LIMIT_FILES.iter().filter_map(|file| Some(((*file).to_owned(), read(file)?))).collect()
}

/// The memory limit of the cgroup of all services, which the kernel reports as bytes or as `max`.
fn services_memory(groups: &Path) -> Option<u64> {
    fs::read_to_string(groups.join("memory.max")).ok()?.trim().parse().ok()
}

/// As many mounts as fit into a reply, in order.
fn bounded_mounts(mountinfo: &str) -> Vec<(String, String)> {
    let mut left = MAX_MOUNTS;
    let short = |text: &str| bounded(text, MAX_TEXT);
    let mounts = mountinfo.lines().filter_map(mount).map(|(at, options)| (short(&at), short(&options)));
    let fits = |mount: &(String, String)| {
        let rest =
            serde_json::to_vec(mount).ok().and_then(|json| left.checked_sub(json.len().saturating_add(1)));
        rest.map(|rest| left = rest).is_some()
    };
    mounts.take_while(fits).collect()
}

/// The mount point and options from a line of mountinfo (`Documentation/filesystems/proc.rst`, section 3.5).
fn mount(line: &str) -> Option<(String, String)> {
    let mut fields = line.split(' ').skip(4);
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

fn limit(line: &str) -> Option<(String, String, String)> {
    let name = LIMIT_ROWS.iter().find(|name| line.starts_with(**name))?;
    let mut values = line.strip_prefix(name)?.split_whitespace();
    Some(((*name).to_owned(), values.next()?.to_owned(), values.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confinement_of_this_process_can_be_read() {
        let confinement = inspect(&Paths::default(), "self", std::process::id()).unwrap();
        assert_eq!(confinement.uids.len(), 4);
        assert_eq!(confinement.limits.len(), 2);
        assert!(confinement.mounts.iter().any(|(place, _)| place == "/proc"));
    }

    #[test]
    fn many_long_mounts_still_fit_into_a_frame() {
        let (path, options) = ("\u{1}\"".repeat(2048), "rw,".repeat(2000));
        let mountinfo = format!("24 1 0:22 / /{path} {options} shared:1 - tmpfs tmpfs rw\n").repeat(1000);
        let mounts = bounded_mounts(&mountinfo);
        assert!(mounts.len() > 10);
        assert!(serde_json::to_vec(&mounts).unwrap().len() <= MAX_MOUNTS + 2);
    }

    #[test]
    fn a_services_program_is_distinguished_from_its_first_process_and_its_children() {
        let (proc, cgroups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(cgroups.path().join("web")).unwrap();
        std::fs::write(cgroups.path().join("web/cgroup.procs"), "50\n53\n52\n51\n").unwrap();
        for (pid, parent, number) in [(50, 1, 1), (51, 50, 2), (52, 51, 3), (53, 50, 4)] {
            std::fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            let status = format!("Name:\tx\nPPid:\t{parent}\nNSpid:\t{pid}\t{number}\n");
            std::fs::write(proc.path().join(format!("{pid}/status")), status).unwrap();
        }
        let paths =
            Paths { proc: proc.path().to_owned(), cgroups: cgroups.path().to_owned(), ..Paths::default() };
        assert_eq!(program_below(&paths, "web", 50), 51);
        assert_eq!(program_below(&paths, "web", 60), 60, "a program that has exited");
        assert_eq!(program_below(&paths, "gone", 50), 50);
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        assert!(inspect(&Paths::default(), "gone", u32::MAX).is_err());
    }

    #[test]
    fn the_fields_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tweb\nUid:\t33\t33\t33\t33\nGroups:\t33 44 \nNoNewPrivs:\t1\nSeccomp:\t2\nCapBnd:\t0000000000000400\n";
        assert_eq!(numbers(status, "Uid"), [33; 4]);
        assert_eq!(numbers(status, "Groups"), [33, 44]);
        assert_eq!(field(status, "NoNewPrivs"), "1");
        assert_eq!(mask(status, "CapBnd"), 0x400);
        assert_eq!(
            mount("24 1 0:22 / /proc rw,nosuid,nodev shared:1 - proc proc rw"),
            Some(("/proc".into(), "rw,nosuid,nodev".into()))
        );
        assert_eq!(
            limit("Max open files            1024                 4096                 files     "),
            Some(("Max open files".into(), "1024".into(), "4096".into()))
        );
    }
}
