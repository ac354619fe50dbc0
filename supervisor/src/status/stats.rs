//! Resource usage of each service, from its cgroup.
//!
//! Invariant: these are the kernel's own counters, read on request. A counter that cannot be read is zero: a service
//! that is not running has no cgroup.

use std::fs;
use std::path::Path;

use cloister_wire::control::ServiceStats;

/// The resource usage of the services of these names, whose cgroups are in `cgroups`.
pub fn stats<'a, N: Iterator<Item = &'a str>>(cgroups: &Path, names: N) -> Vec<ServiceStats> {
    names.map(|name| one(&cgroups.join(name), name)).collect()
}

fn one(cgroup: &Path, name: &str) -> ServiceStats {
    ServiceStats {
        name: name.to_owned(),
        cpu_us: keyed(cgroup, "cpu.stat", "usage_usec"),
        memory: number(cgroup, "memory.current"),
        memory_peak: number(cgroup, "memory.peak"),
        pids: number(cgroup, "pids.current"),
        oom_kills: killed(cgroup),
    }
}

/// Out-of-memory kills in the service `name`; zero if its cgroup does not exist.
#[must_use]
pub fn oom_kills(cgroups: &Path, name: &str) -> u64 {
    killed(&cgroups.join(name))
}

/// Out-of-memory kills. A cgroup that is killed as a whole (`memory.oom.group`) counts its first victim twice, as the
/// selected process and as a member (`oom_kill_process`, `mm/oom_kill.c` of Linux 6.12).
fn killed(cgroup: &Path) -> u64 {
    let count = |key| keyed(cgroup, "memory.events", key);
    count("oom_kill").saturating_sub(count("oom_group_kill"))
}

fn number(cgroup: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// The value of `key` in a file of `key value` lines.
fn keyed(cgroup: &Path, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    let value = text.lines().filter_map(|line| line.split_once(' ')).find(|(k, _)| *k == key);
    value.and_then(|(_, v)| v.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_read_from_the_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = folder.path().join("web");
        fs::create_dir(&cgroup).unwrap();
        let files = [
            ("cpu.stat", "usage_usec 1234\nuser_usec 1000\n"),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("pids.current", "3\n"),
            ("memory.events", "low 0\noom 1\noom_kill 5\noom_group_kill 1\n"),
        ];
        for (file, text) in files {
            fs::write(cgroup.join(file), text).unwrap();
        }
        let all = stats(folder.path(), ["web", "gone"].into_iter());
        let web = ServiceStats {
            name: "web".into(),
            cpu_us: 1234,
            memory: 4096,
            memory_peak: 8192,
            pids: 3,
            oom_kills: 4,
        };
        assert_eq!(all.first(), Some(&web));
        assert_eq!(all.get(1).map(|s| s.memory), Some(0));
    }
}
