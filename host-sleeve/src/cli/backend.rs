//! The options of `run` that belong to backends.
//!
//! Invariant: they are exactly the options that the backends declare, passed on as typed. A value that no backend declares is
//! refused here; whether a backend accepts an option is for that backend to check.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::Error;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::backends::list;
use crate::backends::options::{Chosen, Offer};

/// The chosen options.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendOptions(pub(crate) Chosen);

fn arg(offer: Offer) -> Arg {
    let values = offer.values.iter().map(|(value, help)| PossibleValue::new(*value).help(*help));
    let arg = Arg::new(offer.name).long(offer.name).value_name("NAME").help(offer.help);
    let arg = arg.value_parser(PossibleValuesParser::new(values));
    match offer.default {
        Some(default) => arg.default_value(default),
        None => arg,
    }
}

impl Args for BackendOptions {
    fn augment_args(command: Command) -> Command {
        command.args(list::offers().into_iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for BackendOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for offer in list::offers() {
            let typed = matches.value_source(offer.name) == Some(ValueSource::CommandLine);
            if let Some(value) = matches.get_one::<String>(offer.name).filter(|_| typed) {
                self.0.set(offer.name, value);
            }
        }
        Ok(())
    }
}
