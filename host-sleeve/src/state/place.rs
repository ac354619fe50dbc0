//! Where the state of a user's enclaves is stored.
//!
//! Invariant: the location depends on the user alone, not on the session. An enclave outlives the login that launched it, and
//! `ps` from another login, a service or cron must find it: so nothing here follows `XDG_RUNTIME_DIR`, which is removed at
//! logout, or `XDG_STATE_HOME`, which may be set in one session and not in another.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that selects another location.
pub(super) const VARIABLE: &str = "CLOISTER_STATE_DIR";

/// The former name of this variable, from when the location did not survive a logout.
const FORMER_VARIABLE: &str = "CLOISTER_RUNTIME_DIR";

/// The location for root (file-hierarchy(7): persistent data of system programs).
const ROOT: &str = "/var/lib/cloister";

/// The location below a user's home (XDG Base Directory Specification, the default of `XDG_STATE_HOME`).
const BELOW_HOME: &str = ".local/state/cloister";

/// The location for users without a home directory: it survives logout and reboot (file-hierarchy(7)).
const WITHOUT_HOME: &str = "/var/tmp";

/// What the location is determined from.
#[derive(Debug, Default)]
struct Environment {
    state_dir: Option<OsString>,
    former_state_dir: Option<OsString>,
    home: Option<PathBuf>,
    session: Option<OsString>,
    temporary: PathBuf,
    uid: u32,
}

/// The locations for one user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Where enclaves are recorded now.
    pub(super) now: PathBuf,
    /// Where earlier versions recorded them. Some of those may still be running.
    pub(super) former: Vec<PathBuf>,
}

/// The locations for the user running this program.
pub(super) fn places() -> Places {
    choose(&Environment {
        state_dir: env::var_os(VARIABLE),
        former_state_dir: env::var_os(FORMER_VARIABLE),
        home: env::home_dir().filter(|home| home.is_absolute() && home.is_dir()),
        session: env::var_os("XDG_RUNTIME_DIR"),
        temporary: env::temp_dir(),
        uid: rustix::process::geteuid().as_raw(),
    })
}

fn choose(given: &Environment) -> Places {
    let set = |value: &Option<OsString>| value.as_ref().filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(requested) = set(&given.state_dir).or_else(|| set(&given.former_state_dir)) {
        // A location set by the user is the only one.
        return Places { now: requested, former: Vec::new() };
    }
    let uid = given.uid;
    let now = match &given.home {
        _ if uid == 0 => PathBuf::from(ROOT),
        // Not the root directory, which some system users have as their home and cannot write to.
        Some(home) if home != Path::new("/") => home.join(BELOW_HOME),
        _ => Path::new(WITHOUT_HOME).join(format!("cloister-{uid}")),
    };
    let mut former = vec![PathBuf::from(format!("/run/user/{uid}/cloister"))];
    former.extend(set(&given.session).map(|session| session.join("cloister")));
    if uid == 0 {
        former.push(PathBuf::from("/run/cloister"));
    }
    former.push(given.temporary.join(format!("cloister-{uid}")));
    former.sort();
    former.dedup();
    former.retain(|place| *place != now);
    Places { now, former }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(uid: u32, home: &str) -> Environment {
        let home = (!home.is_empty()).then(|| PathBuf::from(home));
        Environment { home, uid, temporary: "/tmp".into(), ..Environment::default() }
    }

    #[test]
    fn a_users_location_does_not_depend_on_the_session() {
        let alone = choose(&given(7, "/home/a"));
        let session = choose(&Environment { session: Some("/run/user/7".into()), ..given(7, "/home/a") });
        assert_eq!(alone.now, Path::new("/home/a/.local/state/cloister"));
        assert_eq!(session, alone);
    }

    #[test]
    fn roots_location_does_not_depend_on_a_login() {
        let service = choose(&given(0, ""));
        let login = choose(&Environment { session: Some("/run/user/0".into()), ..given(0, "/root") });
        assert_eq!((service.now.as_path(), &service), (Path::new("/var/lib/cloister"), &login));
        for former in ["/run/cloister", "/run/user/0/cloister", "/tmp/cloister-0"] {
            assert!(service.former.contains(&PathBuf::from(former)), "{former}");
        }
    }

    #[test]
    fn the_location_of_a_user_without_a_home_survives_a_logout() {
        assert_eq!(choose(&given(7, "")).now, Path::new("/var/tmp/cloister-7"));
        assert_eq!(choose(&given(7, "/")).now, Path::new("/var/tmp/cloister-7"));
    }

    #[test]
    fn a_location_set_by_the_user_is_the_only_one() {
        let requested = Environment {
            state_dir: Some("/a".into()),
            former_state_dir: Some("/b".into()),
            ..given(7, "/h")
        };
        assert_eq!(choose(&requested), Places { now: "/a".into(), former: Vec::new() });
        let before =
            Environment { state_dir: Some("".into()), former_state_dir: Some("/b".into()), ..given(7, "/h") };
        assert_eq!(choose(&before).now, Path::new("/b"));
    }
}
