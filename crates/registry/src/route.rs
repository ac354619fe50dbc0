//! Where requests are sent: which hosts are contacted without encryption, and where a registry may redirect to.
//!
//! Invariant: only this host itself and the hosts that the user names for it are contacted without encryption. Passwords and tokens
//! are sent unencrypted to no other host, and a redirect never leads from an encrypted URL to an unencrypted one.

use ureq::http::Uri;

/// How a URL is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Plain HTTP.
    Open,
    /// HTTPS.
    Encrypted,
}

/// The rules of one registry.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// How the registry itself is accessed.
    pub(super) way: Way,
    /// Whether it is this host.
    pub(super) local: bool,
    plain_http: Vec<String>,
}

impl Route {
    /// The rules for `registry`, where the user allows plain HTTP to the hosts in `plain_http`.
    pub(super) fn new(registry: &str, plain_http: &[String]) -> Self {
        let local = is_local(registry);
        let open = local || plain_http.iter().any(|host| host == registry);
        Self { way: if open { Way::Open } else { Way::Encrypted }, local, plain_http: plain_http.to_vec() }
    }

    /// How a URL named by the registry is to be accessed: its token server, or the target of a redirect. `None` if it is not
    /// allowed. The URL is parsed like the HTTP client parses it.
    pub(super) fn way_to(&self, place: &str) -> Option<Way> {
        let place: Uri = place.parse().ok()?;
        let host = place.host()?;
        match place.scheme_str()? {
            "https" => Some(Way::Encrypted),
            "http" if self.local && is_local(host) => Some(Way::Open),
            "http" if self.way == Way::Open && self.is_named(&place) => Some(Way::Open),
            _ => None,
        }
    }

    fn is_named(&self, place: &Uri) -> bool {
        // An authority with a user in it is not a plain host name, and never matches.
        place
            .authority()
            .is_some_and(|authority| self.plain_http.iter().any(|host| host == authority.as_str()))
    }
}

/// The target of a redirect from `base` (RFC 3986, 5.2), for the forms that servers send.
pub(super) fn resolve(base: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let base: Uri = base.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{authority}{folder}/{location}"))
}

/// Whether two URLs belong to the same server, which may then receive the same password.
pub(super) fn same_server(first: &str, second: &str) -> bool {
    let server = |place: &str| {
        let place: Uri = place.parse().ok()?;
        Some((place.scheme_str()?.to_owned(), place.authority()?.to_string()))
    };
    server(first).is_some_and(|first| server(second) == Some(first))
}

/// Whether a registry is this host, by a name or number that no other host can have.
pub(super) fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_contacted_without_encryption() {
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(Route::new(local, &[]).way, Way::Open, "{local}");
        }
        for other in ["localhost.example.com", "127.0.0.1.nip.io", "10.0.0.1:5000", "[::2]", "ghcr.io", ""] {
            assert_eq!(Route::new(other, &[]).way, Way::Encrypted, "{other}");
        }
    }

    #[test]
    fn a_host_that_the_user_names_is_contacted_by_plain_http() {
        let named = ["lab.example:5000".to_owned()];
        let route = Route::new("lab.example:5000", &named);
        assert_eq!(route.way, Way::Open);
        assert_eq!(route.way_to("http://lab.example:5000/token"), Some(Way::Open));
        for other in ["http://lab.example/token", "http://x@lab.example:5000/", "http://localhost/token"] {
            assert_eq!(route.way_to(other), None, "{other}");
        }
        assert_eq!(Route::new("lab.example", &named).way, Way::Encrypted, "another port is another registry");
        assert_eq!(Route::new("ghcr.io", &named).way_to("http://lab.example:5000/token"), None);
    }

    #[test]
    fn a_password_is_sent_unencrypted_to_this_host_alone() {
        let (local, remote) = (Route::new("localhost:5000", &[]), Route::new("ghcr.io", &[]));
        for place in ["http://localhost/token", "http://127.0.0.1:5001/t?x", "http://[::1]:5001/t"] {
            assert_eq!(local.way_to(place), Some(Way::Open), "{place}");
            assert_eq!(remote.way_to(place), None, "{place}");
        }
        for other in ["http://auth.example.com/token", "http://localhost@192.0.2.1/", "http://[::2]/", "/t"] {
            assert_eq!(local.way_to(other), None, "{other}");
        }
        assert_eq!(local.way_to("https://auth.example.com/token"), Some(Way::Encrypted));
    }

    #[test]
    fn a_redirect_is_resolved_against_its_origin() {
        let base = "http://127.0.0.1:5000/v2/app/blobs/x";
        for (location, expected) in [
            ("https://store.example/y?z", "https://store.example/y?z"),
            ("//store.example/y", "http://store.example/y"),
            ("/y", "http://127.0.0.1:5000/y"),
            ("y", "http://127.0.0.1:5000/v2/app/blobs/y"),
        ] {
            assert_eq!(resolve(base, location).as_deref(), Some(expected));
        }
        assert!(same_server(base, "http://127.0.0.1:5000/y"));
        assert!(
            !same_server(base, "http://127.0.0.1:5001/y") && !same_server(base, "https://127.0.0.1:5000/y")
        );
    }
}
