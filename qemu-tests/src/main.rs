//! `qemu-tests`: runs the scenarios, prints the result of each, and counts them.

use std::io::Write;
use std::process::ExitCode;

use qemu_tests::runner::{Plan, RunReport};

/// What `--help` prints.
const USAGE: &str = "usage: qemu-tests --dist DIR --probe FILE --inputs SCRIPT [--guest DIR] [--test-kernel FILE] [--jobs N] [HOST…] [NAME…]
       qemu-tests --list [HOST…] [NAME…]
       qemu-tests --dist DIR --probe FILE --inputs SCRIPT --soak MINUTES

Boots each scenario (or those whose names contain a NAME) under QEMU and prints the results: two at once if there is memory for
them, or the number given by --jobs, and those that need the whole machine one by one at the end. With --soak: kills services and
the supervisor of one enclave at random for that long, and checks that all counts agree.
HOST describes the host: `--vsock kernel` for the kernel's vsock instead of vhost-device-vsock, and `--lacks inputs`,
`--lacks nitro`, `--lacks test-kernel` and `--lacks space` for what it lacks; scenarios that need it are not run. `--only NEED`
runs the scenarios with that need; `--only bare-cpu` is for a host with KVM and without RDRAND.
The last line is `N passed, N failed, N skipped`; the exit code is 0 if none failed, and, where CI is set, none was skipped.
";

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    match Plan::from_args(std::env::args().skip(1)) {
        Ok(Plan::Help) => finish(&write!(out, "{USAGE}"), ExitCode::SUCCESS),
        Ok(Plan::List(choice)) => {
            let names: Vec<&str> = choice.names().collect();
            finish(&writeln!(out, "{}", names.join("\n")), ExitCode::SUCCESS)
        }
        Ok(Plan::Run(run)) => {
            let report = run.all(&mut out);
            let code = if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            finish(&writeln!(out, "{}", RunReport::line(&report)), code)
        }
        Ok(Plan::Soak(built, time)) => match qemu_tests::soak::run(&built, time, &mut out) {
            Ok((passed, failed)) => {
                let code = if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                finish(&writeln!(out, "{passed} passed, {failed} failed"), code)
            }
            Err(why) => finish(&writeln!(out, "{why}\n0 passed, 1 failed"), ExitCode::FAILURE),
        },
        Err(why) => finish(&write!(std::io::stderr(), "qemu-tests: {why}\n{USAGE}"), ExitCode::from(2)),
    }
}

fn finish(written: &std::io::Result<()>, code: ExitCode) -> ExitCode {
    if written.is_ok() { code } else { ExitCode::FAILURE }
}
