//! The command line.
//!
//! Its law: what is not understood is refused before anything is asked.

use cloister_wire::control::Verb;

/// The help text.
pub(crate) const USAGE: &str = "\
usage: initctl list                        what runs, one line a service
       initctl status [SERVICE]            the enclave, or one service
       initctl start|stop|restart SERVICE
       initctl wait [--ended] SERVICE      until it is ready, or has ended
       initctl logs [-f] [SERVICE]         what was written, and with -f what comes

for example: initctl restart web && initctl wait web";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Words {
    Help,
    List,
    Status { service: Option<String> },
    Do { verb: Verb, service: String },
    Wait { goal: Goal, service: String },
    Logs { follow: bool, service: Option<String> },
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Ready,
    Ended,
}

impl Words {
    /// Reads arguments without the program's name.
    pub(crate) fn read<A: Iterator<Item = String>>(arguments: A) -> Result<Self, String> {
        let (flags, mut names): (Vec<String>, Vec<String>) =
            arguments.partition(|word| word.starts_with('-'));
        if flags.iter().any(|flag| flag == "-h" || flag == "--help") {
            return Ok(Self::Help);
        }
        if names.is_empty() {
            return Err("say what to do".into());
        }
        let command = names.remove(0);
        let flag = |known: &[&str]| match flags.as_slice() {
            [] => Ok(false),
            [one] if known.contains(&one.as_str()) => Ok(true),
            _ => Err(format!("{command} does not know {}", flags.join(" "))),
        };
        let words = match command.as_str() {
            "list" => flag(&[]).map(|_| Self::List),
            "status" => flag(&[]).map(|_| Self::Status { service: names.pop() }),
            "start" => Self::verb(Verb::Start, flag(&[])?, names.pop()),
            "stop" => Self::verb(Verb::Stop, flag(&[])?, names.pop()),
            "restart" => Self::verb(Verb::Restart, flag(&[])?, names.pop()),
            "wait" => {
                let goal = if flag(&["--ended"])? { Goal::Ended } else { Goal::Ready };
                let service = names.pop().ok_or("wait for which service?")?;
                Ok(Self::Wait { goal, service })
            }
            "logs" => Ok(Self::Logs { follow: flag(&["-f", "--follow"])?, service: names.pop() }),
            other => Err(format!("{other:?} is nothing it can do")),
        }?;
        if names.is_empty() { Ok(words) } else { Err(format!("{} is too much", names.join(" "))) }
    }

    fn verb(verb: Verb, _no_flags: bool, service: Option<String>) -> Result<Self, String> {
        let service = service.ok_or_else(|| format!("{verb:?} which service?").to_lowercase())?;
        Ok(Self::Do { verb, service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Words, String> {
        Words::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn each_command_is_understood() {
        let web = || "web".to_owned();
        let table = [
            ("list", Words::List),
            ("status", Words::Status { service: None }),
            ("status web", Words::Status { service: Some(web()) }),
            ("restart web", Words::Do { verb: Verb::Restart, service: web() }),
            ("wait web", Words::Wait { goal: Goal::Ready, service: web() }),
            ("wait --ended web", Words::Wait { goal: Goal::Ended, service: web() }),
            ("logs -f", Words::Logs { follow: true, service: None }),
            ("logs web -f", Words::Logs { follow: true, service: Some(web()) }),
            ("stop --help", Words::Help),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_words() {
        let lines =
            ["", "exec sh", "stop", "stop web db", "list web", "list -f", "wait", "logs -x", "start -f web"];
        for line in lines {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
