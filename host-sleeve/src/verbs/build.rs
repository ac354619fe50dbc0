//! `build` and `check`.

use cloister_image::artifact::RootForm;
use cloister_wire::exit;
use serde::Serialize;

use crate::build::{self, Order, Refusal};
use crate::cli::{Build, Check};
use crate::error::Result;
use crate::output;

use super::DONE;

/// What was built, as `build --json` shows it.
#[derive(Serialize)]
struct Built {
    path: std::path::PathBuf,
    digest: String,
}

/// A sound manifest, as `check --json` shows it.
#[derive(Serialize)]
struct Sound {
    faults: [(); 0],
    /// In start order.
    services: Vec<String>,
}

/// Builds an enclave image.
pub(crate) fn build(asked: &Build, json: bool) -> Result<u8> {
    let root = if asked.plain_root { RootForm::Plain } else { RootForm::Erofs };
    let order = Order {
        root,
        image: asked.image.as_deref(),
        from: asked.from.as_deref(),
        manifest: &asked.manifest,
        output: &asked.output,
        eif: asked.eif.as_deref(),
        sign: asked.sign_key.as_deref().zip(asked.sign_certificate.as_deref()),
    };
    match build::build(&order) {
        Ok(digest) if json => {
            output::json(&Built { path: build::absolute(&asked.output)?, digest: digest.to_string() })?;
            Ok(DONE)
        }
        Ok(digest) => output::data(&digest.to_string()).map(|()| DONE),
        Err(refusal) => refused(refusal, json),
    }
}

/// Checks a manifest.
pub(crate) fn check(asked: &Check, json: bool) -> Result<u8> {
    match build::check(&asked.manifest, asked.image.as_deref()) {
        Ok(services) if json => output::json(&Sound { faults: [], services }).map(|()| DONE),
        Ok(services) => {
            output::note(&format!("{} is sound: {}", asked.manifest.display(), services.join(", ")));
            Ok(DONE)
        }
        Err(refusal) => refused(refusal, json),
    }
}

fn refused(refusal: Refusal, json: bool) -> Result<u8> {
    match refusal {
        Refusal::Other(error) => Err(error),
        Refusal::Manifest(report) if json => output::json(&report.to_json()).map(|()| exit::OUR_FAILURE),
        Refusal::Manifest(report) => {
            output::note(&report.to_string());
            Ok(exit::OUR_FAILURE)
        }
    }
}
