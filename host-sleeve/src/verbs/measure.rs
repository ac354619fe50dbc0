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
        (Source::Eif(_), true) => {
            let what = format!("{} boots on AWS Nitro machines only", args.app.display());
            return Err(Error::operator(what).hint("measure the app.cloister that it was built from"));
        }
        (Source::Artifact(artifact), true) => artifact.development_measurements(),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloister_image::eif::{Arch, BuildMetadata, Metadata, Parts, Signing, write};
    use cloister_image::tree::Content;

    use super::*;

    /// An enclave image file that does not boot.
    fn eif() -> tempfile::NamedTempFile {
        let content = |bytes: &[u8]| Content::Bytes(Arc::from(bytes));
        let text = || "test".to_owned();
        let build_metadata = BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".into(),
            build_tool: text(),
            build_tool_version: text(),
            operating_system: "Linux".into(),
            kernel_version: text(),
        };
        let parts = Parts {
            arch: Arch::X86_64,
            kernel: content(b"kernel"),
            command_line: "quiet",
            ramdisks: vec![content(b"first"), content(b"second")],
            metadata: Metadata {
                image_name: text(),
                image_version: text(),
                build_metadata,
                docker_info: std::collections::BTreeMap::new(),
                custom_metadata: std::collections::BTreeMap::new(),
            },
            default_memory: 1,
            default_cpus: 1,
            signing: Signing::Unsigned,
        };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write(&parts, file.as_file_mut()).unwrap();
        file
    }

    #[test]
    fn a_file_for_aws_nitro_is_not_measured_for_the_platform_virtual() {
        let file = eif();
        let mut args = Measure { app: file.path().to_owned(), development: false };
        assert_eq!(of(&args).unwrap().nitro.unwrap().command_line, "quiet");
        args.development = true;
        let error = of(&args).unwrap_err();
        let hint = error.details().hint.clone().unwrap();
        assert_eq!(hint, "measure the app.cloister that it was built from", "{error}");
    }
}
