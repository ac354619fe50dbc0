//! What an image's HEALTHCHECK asks for, in the words of a manifest.
//!
//! Its law: a command is never run and never taken apart further than a reader would at a glance; what is not understood has
//! no translation, nor has what is understood and asks in another way: with a body, by a socket of a path, through a pipe.
//!
//! Source: Docker's `HEALTHCHECK`, and the commands that images give there: curl, wget and nc.

use super::image::Healthcheck;

/// Names of the machine itself, as checks write them.
const LOCAL: [&str; 4] = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];

/// Programs that fetch a URL, and programs that connect to a port.
const FETCHERS: [&str; 2] = ["curl", "wget"];
const CONNECTORS: [&str; 3] = ["nc", "ncat", "netcat"];

/// Options that have curl ask in another way than GET by TCP, or ask somebody else, and those of them that have a letter. Of a
/// long one, this is the beginning.
const CURL_OTHERWISE: [&str; 14] = [
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
const CURL_OTHERWISE_SHORT: &str = "XdFTxK";
/// Letters of curl that have a value, which may stand right behind: what follows is no option.
const CURL_VALUES: &str = "AbcCDeEhHmoPQrtuUwyYz";

/// The same of wget, whose letters change nothing of this, and of nc, which asks by UDP or by a socket of a path.
const WGET_OTHERWISE: [&str; 3] = ["--post-", "--method", "--body-"];
const NC_OTHERWISE: [&str; 2] = ["--udp", "--unixsock"];
const NC_OTHERWISE_SHORT: &str = "uU";
/// Letters of nc that have a value.
const NC_VALUES: &str = "eiIpPqsTwxX";

/// What stands in front of a command without being one.
const SHELLS: [&str; 7] = ["sh", "bash", "/bin/sh", "/bin/bash", "-c", "-ec", "exec"];

/// The most characters of a command that are shown.
const MAX_SHOWN: usize = 200;

/// The command that Docker would run, for people; `None` if there is none.
pub(super) fn command(check: &Healthcheck) -> Option<String> {
    match check.test.split_first() {
        Some((kind, words)) if kind != "NONE" && !words.is_empty() => {
            let whole = words.join(" ");
            let mut characters = whole.chars();
            let mut shown = String::new();
            for character in characters.by_ref().take(MAX_SHOWN) {
                match character {
                    // A command is full of them, and they do no harm.
                    '"' | '\'' | '\\' => shown.push(character),
                    // What would begin another line or drive the terminal.
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

/// The check that asks for the same, as a manifest has it: `{http: {port: 80, path: /}}`.
pub(super) fn translate(check: &Healthcheck) -> Option<String> {
    let (_, words) = check.test.split_first()?;
    // What comes behind a pipe decides, not the answer.
    if words.iter().any(|word| word.replace("||", "").contains('|')) {
        return None;
    }
    let quotes = ['"', '\'', ';'];
    let words = words.iter().flat_map(|word| word.split_whitespace()).map(|word| word.trim_matches(quotes));
    let mut words = words.skip_while(|word| SHELLS.contains(word));
    let program = words.next()?;
    let program = program.rsplit('/').next().unwrap_or(program);
    // What follows is another command's.
    let words: Vec<&str> = words.take_while(|word| !word.starts_with("||") && *word != "&&").collect();
    if words.iter().any(|word| otherwise(program, word)) {
        return None;
    }
    if FETCHERS.contains(&program) {
        // Both take a URL without its scheme; beside one that has it, such a word is an option's.
        let whole = words.iter().any(|word| word.contains("://"));
        return words.into_iter().filter(|word| !whole || word.contains("://")).find_map(fetched);
    }
    let mut words = words.into_iter();
    let connects = CONNECTORS.contains(&program);
    let local = connects && words.any(|word| LOCAL.contains(&word));
    let port = words.next().and_then(port).filter(|_| local)?;
    Some(format!("{{tcp: {port}}}"))
}

/// Whether a word is an option with which the program asks for something that no check asks for.
fn otherwise(program: &str, word: &str) -> bool {
    let (long, short, values): (&[&str], _, _) = match program {
        "curl" => (&CURL_OTHERWISE, CURL_OTHERWISE_SHORT, CURL_VALUES),
        "wget" => (&WGET_OTHERWISE, "", ""),
        _ => (&NC_OTHERWISE, NC_OTHERWISE_SHORT, NC_VALUES),
    };
    if word.starts_with("--") {
        return long.iter().any(|option| word.starts_with(option));
    }
    // Letters may stand together: `-fsSX POST`.
    let letters = word.strip_prefix('-').unwrap_or_default().chars();
    letters.take_while(|letter| !values.contains(*letter)).any(|letter| short.contains(letter))
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
            (&["CMD-SHELL", "curl -fo /dev/null http://localhost/ ||exit 1"], "{http: {port: 80, path: /}}"),
            (&["CMD-SHELL", "curl -HX-Id:d http://localhost/"], "{http: {port: 80, path: /}}"),
            (&["CMD-SHELL", "wget -qO- -T 5 http://localhost/"], "{http: {port: 80, path: /}}"),
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
    fn nothing_in_a_command_begins_a_line_or_drives_a_terminal() {
        let shown = command(&check(&["CMD-SHELL", "a 'b' \"c\"\nhint: \u{1b}[2J\r\u{202e}d"]));
        assert_eq!(shown.as_deref(), Some(r#"a 'b' "c"\nhint: \u{1b}[2J\r\u{202e}d"#));
    }

    #[test]
    fn a_command_is_shown_as_far_as_fits_on_a_few_lines() {
        assert_eq!(command(&check(&["CMD", "a", "b"])).as_deref(), Some("a b"));
        assert_eq!((command(&check(&["NONE"])), command(&check(&[]))), (None, None));
        let long = command(&check(&["CMD-SHELL", &"ö".repeat(300)])).unwrap_or_default();
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }
}
