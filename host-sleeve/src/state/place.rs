//! Where the enclaves of a user are recorded.
//!
//! Its law: the place depends on the user alone, not on the session. An enclave outlives the login that launched it, and
//! `ps` from another login, a service or cron must find it: so nothing here follows `XDG_RUNTIME_DIR`, which is removed at
//! logout, or `XDG_STATE_HOME`, which one session may have set and another not.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that names another place.
pub(super) const VARIABLE: &str = "CLOISTER_STATE_DIR";

/// The name of this variable before the place was a durable one.
const FORMER_VARIABLE: &str = "CLOISTER_RUNTIME_DIR";

/// Root's place (file-hierarchy(7): persistent data of system programs).
const ROOT: &str = "/var/lib/cloister";

/// What lies below a user's home (XDG Base Directory Specification, the default of `XDG_STATE_HOME`).
const BELOW_HOME: &str = ".local/state/cloister";

/// Where a user without a home directory is served: it survives logout and reboot (file-hierarchy(7)).
const HOMELESS: &str = "/var/tmp";

/// What decides about the place.
#[derive(Debug, Default)]
struct Given {
    asked: Option<OsString>,
    formerly_asked: Option<OsString>,
    home: Option<PathBuf>,
    session: Option<OsString>,
    temporary: PathBuf,
    uid: u32,
}

/// The places of one user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Where enclaves are recorded.
    pub(super) now: PathBuf,
    /// Where earlier versions recorded them. Some may still run there.
    pub(super) former: Vec<PathBuf>,
}

/// The places of the user who runs this program.
pub(super) fn places() -> Places {
    choose(&Given {
        asked: env::var_os(VARIABLE),
        formerly_asked: env::var_os(FORMER_VARIABLE),
        home: env::home_dir().filter(|home| home.is_absolute() && home.is_dir()),
        session: env::var_os("XDG_RUNTIME_DIR"),
        temporary: env::temp_dir(),
        uid: rustix::process::geteuid().as_raw(),
    })
}

fn choose(given: &Given) -> Places {
    let set = |value: &Option<OsString>| value.as_ref().filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(asked) = set(&given.asked).or_else(|| set(&given.formerly_asked)) {
        // Whoever names a place means that one and no other.
        return Places { now: asked, former: Vec::new() };
    }
    let uid = given.uid;
    let now = match &given.home {
        _ if uid == 0 => PathBuf::from(ROOT),
        // Not the root directory, which system users have as their home and cannot write to.
        Some(home) if home != Path::new("/") => home.join(BELOW_HOME),
        _ => Path::new(HOMELESS).join(format!("cloister-{uid}")),
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

    fn given(uid: u32, home: &str) -> Given {
        let home = (!home.is_empty()).then(|| PathBuf::from(home));
        Given { home, uid, temporary: "/tmp".into(), ..Given::default() }
    }

    #[test]
    fn a_user_has_one_place_whatever_the_session_says() {
        let alone = choose(&given(7, "/home/a"));
        let session = choose(&Given { session: Some("/run/user/7".into()), ..given(7, "/home/a") });
        assert_eq!(alone.now, Path::new("/home/a/.local/state/cloister"));
        assert_eq!(session, alone);
    }

    #[test]
    fn root_has_one_place_whether_it_logged_in_or_not() {
        let service = choose(&given(0, ""));
        let login = choose(&Given { session: Some("/run/user/0".into()), ..given(0, "/root") });
        assert_eq!((service.now.as_path(), &service), (Path::new("/var/lib/cloister"), &login));
        for former in ["/run/cloister", "/run/user/0/cloister", "/tmp/cloister-0"] {
            assert!(service.former.contains(&PathBuf::from(former)), "{former}");
        }
    }

    #[test]
    fn a_user_without_a_home_has_a_place_that_survives_a_logout() {
        assert_eq!(choose(&given(7, "")).now, Path::new("/var/tmp/cloister-7"));
        assert_eq!(choose(&given(7, "/")).now, Path::new("/var/tmp/cloister-7"));
    }

    #[test]
    fn a_named_place_is_the_only_one() {
        let asked = Given { asked: Some("/a".into()), formerly_asked: Some("/b".into()), ..given(7, "/h") };
        assert_eq!(choose(&asked), Places { now: "/a".into(), former: Vec::new() });
        let before = Given { asked: Some("".into()), formerly_asked: Some("/b".into()), ..given(7, "/h") };
        assert_eq!(choose(&before).now, Path::new("/b"));
    }
}
