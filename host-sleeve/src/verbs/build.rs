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
use crate::error::{Error, ErrorContext, Result};
use crate::output;
use crate::registry::Access;
use crate::signals::Signals;
use crate::values::ImageLimit;

use super::{DONE, block_on};

/// Time limit for removing the files of a cancelled build: an unresponsive registry or disk may take longer, and the user who
/// cancelled should not have to wait for it.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Stack size of the building thread in bytes: that of a main thread (`ulimit -s`).
const STACK: usize = 8 * 1024 * 1024;

/// The result of `build --json`.
#[derive(Serialize)]
struct Built {
    path: std::path::PathBuf,
    digest: String,
}

/// The result of `check --json` for a valid manifest.
#[derive(Serialize)]
struct Valid {
    problems: [(); 0],
    /// In start order.
    services: Vec<String>,
}

/// Builds an enclave image.
pub(crate) fn build(args: Build, json: bool) -> Result<u8> {
    let output = args.output.clone();
    let work = move |stop: &Stop| {
        let mut args = args;
        let access = std::mem::take(&mut args.registries).access();
        build::build(&order(&args, &access), stop)
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

fn order<'a>(args: &'a Build, access: &'a Access) -> Order<'a> {
    Order {
        root: if args.plain_root { RootForm::Plain } else { RootForm::Erofs },
        image: args.image.as_deref(),
        from: args.from.as_deref(),
        manifest: &args.manifest,
        output: &args.output,
        eif: args.eif.as_deref(),
        limits: limits(&args.limit),
        sign: args.sign_key.as_deref().zip(args.sign_certificate.as_deref()),
        access,
    }
}

/// The limits on an image, with those that `--limit` changed.
fn limits(changed: &[ImageLimit]) -> Limits {
    let mut limits = Limits::default();
    for limit in changed {
        limits.set(limit.name, limit.value);
    }
    limits
}

/// Checks a manifest.
pub(crate) fn check(args: Check, json: bool) -> Result<u8> {
    let manifest = args.manifest.clone();
    let checked = interruptible("the check", move |stop| {
        let (limits, access) = (limits(&args.limit), args.registries.access());
        build::check(&args.manifest, args.image.as_deref(), &limits, &access, stop)
    })?;
    match checked {
        Ok(services) if json => output::json(&Valid { problems: [], services }).map(|()| DONE),
        Ok(services) => {
            output::note(&format!("{} is valid: {}", manifest.display(), services.join(", ")));
            Ok(DONE)
        }
        Err(refusal) => refused(refusal, json),
    }
}

/// Runs `work` in a thread until it returns or is interrupted. An interrupted one is given time to remove its files, if it has
/// any, unless a second signal arrives.
fn interruptible<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce(&Stop) -> Result<T, Refusal> + Send + 'static,
) -> Result<Result<T, Refusal>> {
    block_on(async move {
        let context = || format!("cannot start {what}");
        let mut signals = Signals::listen()?;
        let stop = Arc::new(Stop::default());
        let (sender, mut done) = oneshot::channel();
        let thread = {
            let stop = Arc::clone(&stop);
            // Sending fails if the result is no longer waited for; then the process exits.
            move || drop(sender.send(work(&stop)))
        };
        std::thread::Builder::new().stack_size(STACK).spawn(thread).context(context)?;
        tokio::select! {
            // Signals first: Ctrl-C may also have killed a credential helper, whose failure is not the cause.
            biased;
            _ = signals.next() => {}
            result = &mut done => return result.map_err(|error| panicked(what, error)),
        }
        if stop.cancel() {
            tokio::select! {
                result = &mut done => if let Ok(Ok(result)) = result {
                    // It finished before it noticed the cancellation.
                    return Ok(Ok(result));
                },
                _ = signals.next() => {}
                () = time::sleep(CLEAN_UP) => {}
            }
        }
        Err(Error::interrupted(format!("{what} was interrupted")))
    })
}

fn panicked(what: &str, error: oneshot::error::RecvError) -> Error {
    Error::internal(format_args!("{what} panicked")).because(error)
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
