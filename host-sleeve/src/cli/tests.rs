//! Tests of the command line's definition.

use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_an_example() {
    let cli = Cli::command();
    for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("host-sleeve {}", verb.get_name())), "{}", verb.get_name());
    }
}

#[test]
fn every_command_and_option_is_in_the_reference() {
    let reference = include_str!("../../../docs/cli.md");
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        assert!(reference.contains(&format!("\n## {}\n", verb.get_name())), "{}", verb.get_name());
        let shown = verb.get_opts().filter(|option| !option.is_hide_set());
        for option in shown.filter_map(|option| option.get_long()) {
            assert!(reference.contains(&format!("--{option}")), "{} --{option}", verb.get_name());
        }
    }
}

#[test]
fn the_options_of_run_are_parsed() {
    let line = "host-sleeve run app.cloister --publish 8080:80 --detach --name web --cpus 2 --memory 512MiB";
    let Verb::Run(run) = Cli::try_parse_from(line.split(' ')).unwrap().verb else {
        panic!("not a run");
    };
    assert_eq!(run.memory, Some(512 << 20));
    assert_eq!(run.publish.first().unwrap().ingress, 80);
    assert!(run.detach);
}

#[test]
fn service_signal_requires_a_signal() {
    assert!(Cli::try_parse_from(["host-sleeve", "service", "signal", "web", "nginx"]).is_err());
    assert!(Cli::try_parse_from(["host-sleeve", "service", "signal", "web", "nginx", "HUP"]).is_ok());
}
