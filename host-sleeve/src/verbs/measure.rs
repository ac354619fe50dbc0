//! `measure`: the measurements that the hardware will report for an enclave image.

use cloister_image::measure::{Measurements, NitroMeasurements, VERSION};
use serde_json::Value;

use crate::app::{EifFile, Source};
use crate::cli::Measure;
use crate::error::{Error, Result};
use crate::output::{self, Table};

use super::DONE;

/// Computes the measurements from the image's bytes.
pub(crate) fn measure(args: &Measure, json: bool) -> Result<u8> {
    let measurements = of(args)?;
    if json {
        output::json(&measurements)?;
    } else {
        output::data(&text(&measurements))?;
    }
    Ok(DONE)
}

fn of(args: &Measure) -> Result<Measurements> {
    let source = Source::open(&args.app)?;
    let measured = match (&source, args.development) {
        (Source::Eif(file), false) => return Ok(of_file(file)),
        (Source::Artifact(artifact), false) => artifact.measurements(),
        // Refuses a file for AWS Nitro.
        (source, true) => source.artifact()?.development_measurements(),
    };
    measured.map_err(|error| {
        Error::operator(format!("{} cannot be measured", args.app.display()))
            .because(error)
            .hint("if it is damaged, build it again")
    })
}

/// The file names its release only in metadata that is not measured, so the release is omitted.
fn of_file(file: &EifFile) -> Measurements {
    let explained = &file.explanation;
    let nitro = NitroMeasurements { command_line: explained.command_line.clone(), pcrs: explained.pcrs };
    Measurements { version: VERSION, arch: explained.arch, os: None, nitro: Some(nitro), development: None }
}

/// A line for each register.
fn text(measurements: &Measurements) -> String {
    let mut table = Table::default();
    let pcrs =
        measurements.nitro.as_ref().or(measurements.development.as_ref()).map(|measured| measured.pcrs);
    let pcrs = pcrs.and_then(|pcrs| serde_json::to_value(pcrs).ok()).unwrap_or_default();
    for (name, value) in pcrs.as_object().into_iter().flatten() {
        table.row([name.to_uppercase(), value.as_str().map(str::to_owned).unwrap_or_default()]);
    }
    if pcrs == Value::Null {
        return "none: this image supports no hardware that measures".to_owned();
    }
    table.render()
}
