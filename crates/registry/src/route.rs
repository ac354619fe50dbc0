//! Where requests are sent: which hosts are contacted without encryption, and where a registry may redirect to.
//!
//! Invariant: only this host itself and the hosts that the user names for it are contacted without encryption. Passwords and tokens
//! are sent unencrypted to no other host, and a redirect never leads from an encrypted URL to an unencrypted one.

use ureq::http::Uri;

/// How a URL is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTPS.
    Https,
}

/// The rules of one registry.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// How the registry itself is accessed.
    pub(super) scheme: Scheme,
    /// Whether it is this host.
    pub(super) local: bool,
    plain_http: Vec<String>,
}

impl Route {
    /// The rules for `registry`, where the user allows plain HTTP to the hosts in `plain_http`.
    pub(super) fn new(registry: &str, plain_http: &[String]) -> Self {
        let local = is_local(registry);
        let open = local || plain_http.iter().any(|host| host == registry);
        Self {
            scheme: if open { Scheme::Http } else { Scheme::Https },
            local,
            plain_http: plain_http.to_vec(),
        }
    }

    /// How a URL named by the registry is to be accessed: its token server, or the target of a redirect. `None` if it is not
    /// allowed. The URL is parsed like the HTTP client parses it.
    pub(super) fn scheme_for(&self, url: &str) -> Option<Scheme> {
        let url: Uri = url.parse().ok()?;
        let host = url.host()?;
        match url.scheme_str()? {
            "https" => Some(Scheme::Https),
            "http" if self.local && is_local(host) => Some(Scheme::Http),
            "http" if self.scheme == Scheme::Http && self.is_named(&url) => Some(Scheme::Http),
            _ => None,
        }
    }

    fn is_named(&self, url: &Uri) -> bool {
        // An authority with a user in it is not a plain host name, and never matches.
        url.authority().is_some_and(|authority| self.plain_http.iter().any(|host| host == authority.as_str()))
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
    let server = |url: &str| {
        let url: Uri = url.parse().ok()?;
        Some((url.scheme_str()?.to_owned(), url.authority()?.to_string()))
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
            assert_eq!(Route::new(local, &[]).scheme, Scheme::Http, "{local}");
        }
        for other in ["localhost.example.com", "127.0.0.1.nip.io", "10.0.0.1:5000", "[::2]", "ghcr.io", ""] {
            assert_eq!(Route::new(other, &[]).scheme, Scheme::Https, "{other}");
        }
    }

    #[test]
    fn a_host_that_the_user_names_is_contacted_by_plain_http() {
        let named = ["lab.example:5000".to_owned()];
        let route = Route::new("lab.example:5000", &named);
        assert_eq!(route.scheme, Scheme::Http);
        assert_eq!(route.scheme_for("http://lab.example:5000/token"), Some(Scheme::Http));
        for other in ["http://lab.example/token", "http://x@lab.example:5000/", "http://localhost/token"] {
            assert_eq!(route.scheme_for(other), None, "{other}");
        }
        assert_eq!(
            Route::new("lab.example", &named).scheme,
            Scheme::Https,
            "another port is another registry"
        );
        assert_eq!(Route::new("ghcr.io", &named).scheme_for("http://lab.example:5000/token"), None);
    }

    #[test]
    fn a_password_is_sent_unencrypted_to_this_host_alone() {
        let (local, remote) = (Route::new("localhost:5000", &[]), Route::new("ghcr.io", &[]));
        for url in ["http://localhost/token", "http://127.0.0.1:5001/t?x", "http://[::1]:5001/t"] {
            assert_eq!(local.scheme_for(url), Some(Scheme::Http), "{url}");
            assert_eq!(remote.scheme_for(url), None, "{url}");
        }
        for other in ["http://auth.example.com/token", "http://localhost@192.0.2.1/", "http://[::2]/", "/t"] {
            assert_eq!(local.scheme_for(other), None, "{other}");
        }
        assert_eq!(local.scheme_for("https://auth.example.com/token"), Some(Scheme::Https));
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
