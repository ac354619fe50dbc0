//! `prune`: removes pulled images that are no longer used from the cache.

use crate::cli::Prune;
use crate::error::Result;
use crate::registry;
use crate::values::show_size;
use crate::{install, output};

use super::DONE;

/// Prunes the cache.
pub(crate) fn prune(args: &Prune, json: bool) -> Result<u8> {
    let pruned = registry::prune(&install::cache("registry")?, args.unused_for)?;
    if json {
        output::json(&pruned)?;
    } else {
        let (removed, kept) = (show_size(pruned.removed_bytes), show_size(pruned.kept_bytes));
        output::data(&format!(
            "removed {} blobs ({removed}), kept {} ({kept})",
            pruned.removed, pruned.kept
        ))?;
    }
    Ok(DONE)
}
