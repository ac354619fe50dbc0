//! What an image's HEALTHCHECK asks for, in the words of a manifest.
//!
//! Its law: a command is never run and never taken apart further than a reader would at a glance; what is not understood has
//! no translation.
//!
//! Source: Docker's `HEALTHCHECK`, and the commands that images give there: curl, wget and nc.

use super::image::Healthcheck;

/// Names of the machine itself, as checks write them.
const LOCAL: [&str; 4] = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];

/// Programs that fetch a URL, and programs that connect to a port.
const FETCHERS: [&str; 2] = ["curl", "wget"];
const CONNECTORS: [&str; 3] = ["nc", "ncat", "netcat"];

/// What stands in front of a command without being one.
const SHELLS: [&str; 7] = ["sh", "bash", "/bin/sh", "/bin/bash", "-c", "-ec", "exec"];

/// The most characters of a command that are shown.
const MAX_SHOWN: usize = 200;

/// The command that Docker would run, for people; `None` if there is none.
pub(super) fn command(check: &Healthcheck) -> Option<String> {
    match check.test.split_first() {
        Some((kind, words)) if kind != "NONE" && !words.is_empty() => {
            let whole = words.join(" ");
            let shown: String = whole.chars().take(MAX_SHOWN).collect();
            Some(if shown.len() < whole.len() { format!("{shown}…") } else { shown })
        }
        _ => None,
    }
}

/// The check that asks for the same, as a manifest has it: `{http: {port: 80, path: /}}`.
pub(super) fn translate(check: &Healthcheck) -> Option<String> {
    let (_, words) = check.test.split_first()?;
    let quotes = ['"', '\'', ';'];
    let words = words.iter().flat_map(|word| word.split_whitespace()).map(|word| word.trim_matches(quotes));
    let mut words = words.skip_while(|word| SHELLS.contains(word));
    let program = words.next()?;
    let program = program.rsplit('/').next().unwrap_or(program);
    // What follows is another command's.
    let mut words = words.take_while(|word| !matches!(*word, "||" | "&&" | "|"));
    if FETCHERS.contains(&program) {
        // Both take a URL without its scheme; beside one that has it, such a word is an option's.
        let words: Vec<&str> = words.collect();
        let whole = words.iter().any(|word| word.contains("://"));
        return words.into_iter().filter(|word| !whole || word.contains("://")).find_map(fetched);
    }
    let connects = CONNECTORS.contains(&program);
    let local = connects && words.any(|word| LOCAL.contains(&word));
    let port = words.next().and_then(port).filter(|_| local)?;
    Some(format!("{{tcp: {port}}}"))
}

/// The check that asks for a URL of this machine. One of HTTPS can only be connected to.
fn fetched(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let (host, given) = LOCAL.iter().find_map(|host| Some((host, authority.strip_prefix(host)?)))?;
    let port = match (given.strip_prefix(':'), scheme) {
        (Some(digits), _) => port(digits)?,
        (None, _) if authority.len() > host.len() => return None,
        (None, "https") => 443,
        (None, _) => 80,
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    // Of other bytes, YAML or the shell could make something else.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~?=&%+".contains(&byte);
    match scheme {
        "http" if path.bytes().all(plain) => Some(format!("{{http: {{port: {port}, path: {slash}{path}}}}}")),
        "https" => Some(format!("{{tcp: {port}}}")),
        _ => None,
    }
}

fn port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str]) -> Healthcheck {
        Healthcheck { test: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    #[test]
    fn requests_to_the_machine_itself_become_http_checks() {
        for (words, expected) in [
            (
                &["CMD", "curl", "-f", "http://localhost:8080/healthz"][..],
                "{http: {port: 8080, path: /healthz}}",
            ),
            (&["CMD-SHELL", "curl -fsS http://127.0.0.1/ || exit 1"], "{http: {port: 80, path: /}}"),
            (
                &["CMD-SHELL", "wget --no-verbose --tries=1 --spider 'http://[::1]:3000' || exit 1"],
                "{http: {port: 3000, path: /}}",
            ),
            (&["CMD", "/usr/bin/curl", "localhost:9000/up?full=1"], "{http: {port: 9000, path: /up?full=1}}"),
            (&["CMD-SHELL", "curl -fk https://localhost/health"], "{tcp: 443}"),
            (
                &["CMD", "sh", "-c", "curl -H 'Host: localhost' http://localhost:81/"],
                "{http: {port: 81, path: /}}",
            ),
            (&["CMD-SHELL", "nc -z localhost 6379; exit $?"], "{tcp: 6379}"),
        ] {
            assert_eq!(translate(&check(words)).as_deref(), Some(expected), "{words:?}");
        }
    }

    #[test]
    fn what_asks_for_something_else_has_no_translation() {
        for words in [
            &["CMD", "redis-cli", "ping"][..],
            &["CMD-SHELL", "pg_isready -U postgres"],
            &["CMD-SHELL", "curl -f http://localhost:${PORT}/"],
            &["CMD-SHELL", "curl -f http://localhost.example.com/"],
            &["CMD-SHELL", "curl -f http://db:80/ || curl http://localhost/"],
            &["CMD-SHELL", "curl -f http://localhost:0/"],
            &["CMD-SHELL", "curl -f 'http://localhost/{a,b}'"],
            &["CMD-SHELL", "curl -f unix://localhost/"],
            &["CMD", "nc", "-z", "db", "80"],
            &["CMD", "nc", "localhost"],
            &["CMD"],
            &[],
        ] {
            assert_eq!(translate(&check(words)), None, "{words:?}");
        }
    }

    #[test]
    fn a_command_is_shown_as_far_as_fits_on_a_few_lines() {
        assert_eq!(command(&check(&["CMD", "a", "b"])).as_deref(), Some("a b"));
        assert_eq!((command(&check(&["NONE"])), command(&check(&[]))), (None, None));
        let long = command(&check(&["CMD-SHELL", &"ö".repeat(300)])).unwrap_or_default();
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }
}
