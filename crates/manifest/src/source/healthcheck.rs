//! Translates an image's HEALTHCHECK into a check of the manifest.
//!
//! Invariant: the command is never run, and parsed no further than a reader would at a glance. A command that is not
//! understood has no translation, and neither has one that checks differently: with a body, over a Unix socket, or through a
//! pipe.
//!
//! Source: Docker's `HEALTHCHECK`, and the commands that images use there: curl, wget and nc.

use super::image::Healthcheck;

/// Names of the local host, as written in checks.
const LOCAL: [&str; 4] = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];

/// Programs that fetch a URL, and programs that connect to a port.
const FETCHERS: [&str; 2] = ["curl", "wget"];
const CONNECTORS: [&str; 3] = ["nc", "ncat", "netcat"];

/// Options with which curl does something other than a GET over TCP, or uses another host, by the start of their long names;
/// then those that have a short form.
const CURL_UNSUPPORTED: [&str; 14] = [
    "--unix-socket",
    "--abstract-unix-socket",
    "--request",
    "--data",
    "--json",
    "--form",
    "--upload-file",
    "--url-query",
    "--proxy",
    "--preproxy",
    "--socks",
    "--connect-to",
    "--resolve",
    "--config",
];
const CURL_UNSUPPORTED_SHORT: &str = "XdFTxK";
/// Short options of curl that take a value, which may follow immediately: the rest of the word is not options.
const CURL_VALUES: &str = "AbcCDeEhHmoPQrtuUwyYz";

/// The same for wget, which has no such short options, and for nc, which can use UDP or a Unix socket.
const WGET_UNSUPPORTED: [&str; 3] = ["--post-", "--method", "--body-"];
const NC_UNSUPPORTED: [&str; 2] = ["--udp", "--unixsock"];
const NC_UNSUPPORTED_SHORT: &str = "uU";
/// Short options of nc that take a value.
const NC_VALUES: &str = "eiIpPqsTwxX";

/// Words that can precede the actual command.
const SHELLS: [&str; 7] = ["sh", "bash", "/bin/sh", "/bin/bash", "-c", "-ec", "exec"];

/// The maximum number of characters of a command that are shown.
const MAX_SHOWN: usize = 200;

/// The command that Docker would run, for display; `None` if there is none.
pub(super) fn command(check: &Healthcheck) -> Option<String> {
    match check.test.split_first() {
        Some((kind, words)) if kind != "NONE" && !words.is_empty() => {
            let whole = words.join(" ");
            let mut characters = whole.chars();
            let mut shown = String::new();
            for character in characters.by_ref().take(MAX_SHOWN) {
                match character {
                    // Common in commands, and harmless.
                    '"' | '\'' | '\\' => shown.push(character),
                    // Line breaks and terminal control characters.
                    _ => shown.extend(character.escape_debug()),
                }
            }
            if characters.next().is_some() {
                shown.push('…');
            }
            Some(shown)
        }
        _ => None,
    }
}

/// The equivalent check in a manifest's syntax: `{http: {port: 80, path: /}}`.
pub(super) fn translate(check: &Healthcheck) -> Option<String> {
    let (_, words) = check.test.split_first()?;
    // The result depends on the command after the pipe, not on the response.
    if words.iter().any(|word| word.replace("||", "").contains('|')) {
        return None;
    }
    let quotes = ['"', '\'', ';'];
    let words = words.iter().flat_map(|word| word.split_whitespace()).map(|word| word.trim_matches(quotes));
    let mut words = words.skip_while(|word| SHELLS.contains(word));
    let program = words.next()?;
    let program = program.rsplit('/').next().unwrap_or(program);
    // The rest belongs to another command.
    let words: Vec<&str> = words.take_while(|word| !word.starts_with("||") && *word != "&&").collect();
    if words.iter().any(|word| is_unsupported(program, word)) {
        return None;
    }
    if FETCHERS.contains(&program) {
        // Both accept a URL without a scheme; if another word has a scheme, one without is an option's value.
        let whole = words.iter().any(|word| word.contains("://"));
        return words.into_iter().filter(|word| !whole || word.contains("://")).find_map(fetched);
    }
    let mut words = words.into_iter();
    let connects = CONNECTORS.contains(&program);
    let local = connects && words.any(|word| LOCAL.contains(&word));
    let port = words.next().and_then(port).filter(|_| local)?;
    Some(format!("{{tcp: {port}}}"))
}

/// Whether a word is an option that makes the program do something that no check does.
fn is_unsupported(program: &str, word: &str) -> bool {
    let (long, short, values): (&[&str], _, _) = match program {
        "curl" => (&CURL_UNSUPPORTED, CURL_UNSUPPORTED_SHORT, CURL_VALUES),
        "wget" => (&WGET_UNSUPPORTED, "", ""),
        _ => (&NC_UNSUPPORTED, NC_UNSUPPORTED_SHORT, NC_VALUES),
    };
    if word.starts_with("--") {
        return long.iter().any(|option| word.starts_with(option));
    }
    // Short options may be combined: `-fsSX POST`.
    let letters = word.strip_prefix('-').unwrap_or_default().chars();
    letters.take_while(|letter| !values.contains(*letter)).any(|letter| short.contains(letter))
}

/// The check for a URL of the local host. For HTTPS it is only a connection.
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
    // YAML or the shell could interpret other bytes differently.
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
    fn requests_to_the_local_host_become_checks() {
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
            (&["CMD-SHELL", "curl -fo /dev/null http://localhost/ ||exit 1"], "{http: {port: 80, path: /}}"),
            (&["CMD-SHELL", "curl -HX-Id:d http://localhost/"], "{http: {port: 80, path: /}}"),
            (&["CMD-SHELL", "wget -qO- -T 5 http://localhost/"], "{http: {port: 80, path: /}}"),
        ] {
            assert_eq!(translate(&check(words)).as_deref(), Some(expected), "{words:?}");
        }
    }

    #[test]
    fn other_commands_have_no_translation() {
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
            &["CMD", "curl", "--unix-socket", "/run/app.sock", "http://localhost/health"],
            &["CMD", "curl", "--abstract-unix-socket", "app", "http://localhost/health"],
            &["CMD-SHELL", "curl -f -X POST http://localhost/health"],
            &["CMD-SHELL", "curl -fsSXPOST http://localhost/health"],
            &["CMD-SHELL", "curl -f --request POST http://localhost/health"],
            &["CMD-SHELL", "curl -sd '{}' http://localhost/health"],
            &["CMD-SHELL", "curl --data-binary @/query http://localhost/health"],
            &["CMD-SHELL", "curl -f --json '{}' http://localhost/health"],
            &["CMD-SHELL", "curl -F a=b http://localhost/health"],
            &["CMD-SHELL", "curl -f -x http://db:3128 http://localhost/health"],
            &["CMD-SHELL", "wget -q --post-data=a http://localhost/health"],
            &["CMD-SHELL", "wget -q --method PUT http://localhost/health"],
            &["CMD-SHELL", "curl -s http://localhost/health | grep -q UP"],
            &["CMD-SHELL", "curl -sk https://localhost/health|grep -q UP || exit 1"],
            &["CMD-SHELL", "curl -s http://localhost/health |& grep -q UP"],
            &["CMD-SHELL", "nc localhost 6379 | grep -q PONG"],
            &["CMD-SHELL", "nc -zu localhost 53"],
            &["CMD"],
            &[],
        ] {
            assert_eq!(translate(&check(words)), None, "{words:?}");
        }
    }

    #[test]
    fn line_breaks_and_control_characters_of_a_command_are_escaped() {
        let shown = command(&check(&["CMD-SHELL", "a 'b' \"c\"\nhint: \u{1b}[2J\r\u{202e}d"]));
        assert_eq!(shown.as_deref(), Some(r#"a 'b' "c"\nhint: \u{1b}[2J\r\u{202e}d"#));
    }

    #[test]
    fn a_long_command_is_truncated() {
        assert_eq!(command(&check(&["CMD", "a", "b"])).as_deref(), Some("a b"));
        assert_eq!((command(&check(&["NONE"])), command(&check(&[]))), (None, None));
        let long = command(&check(&["CMD-SHELL", &"ö".repeat(300)])).unwrap_or_default();
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }
}
