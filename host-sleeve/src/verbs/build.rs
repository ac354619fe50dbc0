//! `build` and `check`.

use std::sync::Arc;
use std::time::Duration;

use cloister_image::artifact::RootForm;
use cloister_image::limits::Limits;
use cloister_wire::exit;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time;

use crate::build::{self, Order, Refusal, Stop};
use crate::cli::{Build, Check};
use crate::error::{Doing, Error, Result};
use crate::output;
use crate::registry::Access;
use crate::signals::Signals;
use crate::values::ImageLimit;

use super::{DONE, block_on};

/// How long a build that is given up may take to clean up: a registry that stands still, or a disk, may take longer, and
/// whoever wants to go does not wait for them.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// The stack of the thread that builds, in bytes: as much as a main thread has (`ulimit -s`).
const STACK: usize = 8 * 1024 * 1024;

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
pub(crate) fn build(asked: Build, json: bool) -> Result<u8> {
    let output = asked.output.clone();
    let work = move |stop: &Stop| {
        let mut asked = asked;
        let access = std::mem::take(&mut asked.registries).access();
        build::build(&order(&asked, &access), stop)
    };
    match interruptible("the build", work)? {
        Ok(digest) if json => {
            output::json(&Built { path: build::absolute(&output)?, digest: digest.to_string() })?;
            Ok(DONE)
        }
        Ok(digest) => output::data(&digest.to_string()).map(|()| DONE),
        Err(refusal) => refused(refusal, json),
    }
}

fn order<'a>(asked: &'a Build, access: &'a Access) -> Order<'a> {
    Order {
        root: if asked.plain_root { RootForm::Plain } else { RootForm::Erofs },
        image: asked.image.as_deref(),
        from: asked.from.as_deref(),
        manifest: &asked.manifest,
        output: &asked.output,
        eif: asked.eif.as_deref(),
        limits: limits(&asked.limit),
        sign: asked.sign_key.as_deref().zip(asked.sign_certificate.as_deref()),
        access,
    }
}

/// The limits of what an image may be, with those that were moved.
fn limits(moved: &[ImageLimit]) -> Limits {
    let mut limits = Limits::default();
    for limit in moved {
        limits.set(limit.name, limit.value);
    }
    limits
}

/// Checks a manifest.
pub(crate) fn check(asked: Check, json: bool) -> Result<u8> {
    let manifest = asked.manifest.clone();
    let checked = interruptible("the check", move |stop| {
        let (limits, access) = (limits(&asked.limit), asked.registries.access());
        build::check(&asked.manifest, asked.image.as_deref(), &limits, &access, stop)
    })?;
    match checked {
        Ok(services) if json => output::json(&Sound { faults: [], services }).map(|()| DONE),
        Ok(services) => {
            output::note(&format!("{} is sound: {}", manifest.display(), services.join(", ")));
            Ok(DONE)
        }
        Err(refusal) => refused(refusal, json),
    }
}

/// Does `work` in a thread of its own until it ends or is interrupted. Then it cleans up, if there is something to clean
/// up; a second signal does not wait for that.
fn interruptible<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce(&Stop) -> Result<T, Refusal> + Send + 'static,
) -> Result<Result<T, Refusal>> {
    block_on(async move {
        let doing = || format!("cannot start {what}");
        let mut signals = Signals::listen()?;
        let stop = Arc::new(Stop::default());
        let (tell, mut done) = oneshot::channel();
        let thread = {
            let stop = Arc::clone(&stop);
            // Nobody waits any more: then the process ends.
            move || drop(tell.send(work(&stop)))
        };
        std::thread::Builder::new().stack_size(STACK).spawn(thread).doing(doing)?;
        tokio::select! {
            // First: what Ctrl-C has done to a program that was asked for credentials is not the reason.
            biased;
            _ = signals.next() => {}
            result = &mut done => return result.map_err(|error| broke_off(what, error)),
        }
        if stop.give_up() {
            tokio::select! {
                result = &mut done => if let Ok(Ok(result)) = result {
                    // It was done before it heard of it.
                    return Ok(Ok(result));
                },
                _ = signals.next() => {}
                () = time::sleep(CLEAN_UP) => {}
            }
        }
        Err(Error::interrupted(format!("{what} was interrupted")))
    })
}

fn broke_off(what: &str, error: oneshot::error::RecvError) -> Error {
    Error::internal(format_args!("{what} broke off")).because(error)
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
