//! The command line.
//!
//! Invariant: invalid arguments are refused before any request is sent.

use cloister_wire::control::Verb;

/// The help text.
pub(crate) const USAGE: &str = "\
usage: initctl list                        list services, one per line
       initctl status [SERVICE]            show the enclave, or one service
       initctl start|stop|restart SERVICE
       initctl wait [--ended] SERVICE      wait until it is ready, or has ended
       initctl time                        whether the date is trusted, as JSON; exits with 1 if not
       initctl logs [-f] [SERVICE]         print the log; -f: follow it

example: initctl restart web && initctl wait web";

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    Help,
    List,
    Status { service: Option<String> },
    Time,
    Do { verb: Verb, service: String },
    Wait { goal: Goal, service: String },
    Logs { follow: bool, service: Option<String> },
}

/// The condition to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Ready,
    Ended,
}

impl Arguments {
    /// Parses arguments without the program's name.
    pub(crate) fn parse<A: Iterator<Item = String>>(arguments: A) -> Result<Self, String> {
        let (flags, mut names): (Vec<String>, Vec<String>) =
            arguments.partition(|argument| argument.starts_with('-'));
        if flags.iter().any(|flag| flag == "-h" || flag == "--help") {
            return Ok(Self::Help);
        }
        if names.is_empty() {
            return Err("no command given".into());
        }
        let command = names.remove(0);
        let flag = |known: &[&str]| match flags.as_slice() {
            [] => Ok(false),
            [one] if known.contains(&one.as_str()) => Ok(true),
            _ => Err(format!("{command}: unknown option {}", flags.join(" "))),
        };
        let parsed = match command.as_str() {
            "list" => flag(&[]).map(|_| Self::List),
            "status" => flag(&[]).map(|_| Self::Status { service: names.pop() }),
            "time" => flag(&[]).map(|_| Self::Time),
            "start" => Self::verb(Verb::Start, flag(&[])?, names.pop()),
            "stop" => Self::verb(Verb::Stop, flag(&[])?, names.pop()),
            "restart" => Self::verb(Verb::Restart, flag(&[])?, names.pop()),
            "wait" => {
                let goal = if flag(&["--ended"])? { Goal::Ended } else { Goal::Ready };
                let service = names.pop().ok_or("wait: no service given")?;
                Ok(Self::Wait { goal, service })
            }
            "logs" => Ok(Self::Logs { follow: flag(&["-f", "--follow"])?, service: names.pop() }),
            other => Err(format!("unknown command {other:?}")),
        }?;
        if names.is_empty() { Ok(parsed) } else { Err(format!("too many arguments: {}", names.join(" "))) }
    }

    fn verb(verb: Verb, _no_flags: bool, service: Option<String>) -> Result<Self, String> {
        let service = service.ok_or_else(|| format!("{verb:?}: no service given").to_lowercase())?;
        Ok(Self::Do { verb, service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_command_is_parsed() {
        let web = || "web".to_owned();
        let table = [
            ("list", Arguments::List),
            ("status", Arguments::Status { service: None }),
            ("time", Arguments::Time),
            ("status web", Arguments::Status { service: Some(web()) }),
            ("restart web", Arguments::Do { verb: Verb::Restart, service: web() }),
            ("wait web", Arguments::Wait { goal: Goal::Ready, service: web() }),
            ("wait --ended web", Arguments::Wait { goal: Goal::Ended, service: web() }),
            ("logs -f", Arguments::Logs { follow: true, service: None }),
            ("logs web -f", Arguments::Logs { follow: true, service: Some(web()) }),
            ("stop --help", Arguments::Help),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        let lines =
            ["", "exec sh", "stop", "stop web db", "list web", "list -f", "wait", "logs -x", "start -f web"];
        for line in lines {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
