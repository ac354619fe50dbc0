//! `virtual-root`: the root certificate of the development security module, for verifiers that are to accept it.

use serde_json::json;

use crate::cli::VirtualRoot;
use crate::error::{ErrorContext, Result};
use crate::module::DevelopmentRoot;
use crate::output::{self, Table};
use crate::state::Root;

use super::DONE;

/// Prints where the root is and by which digest it is recognized. It is created if there is none.
pub(crate) fn virtual_root(args: &VirtualRoot, json: bool) -> Result<u8> {
    let root = DevelopmentRoot::open(Root::open()?.path())?;
    if let Some(path) = &args.output {
        std::fs::write(path, root.der()).context(|| format!("cannot write {}", path.display()))?;
    }
    let (path, digest) = (args.output.clone().unwrap_or_else(|| root.path()), root.digest().hex());
    if json {
        output::json(&json!({"path": path, "sha256": digest}))?;
    } else {
        let mut table = Table::default();
        table.row(["certificate".to_owned(), path.display().to_string()]);
        table.row(["SHA-256".to_owned(), digest]);
        output::data(&table.render())?;
    }
    output::note(
        "VIRTUAL: evidence from this root proves nothing about hardware. Trust it in development only.",
    );
    Ok(DONE)
}
