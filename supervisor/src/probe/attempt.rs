//! Single attempts of probes.
//!
//! Invariant: each attempt is bounded in bytes; the caller limits its time.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::owners::ServicePort;

/// Bytes of an HTTP status line up to its code: `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

/// The status of the response to `GET path`.
pub(super) async fn http(port: &ServicePort, path: &str) -> io::Result<u16> {
    let mut stream = port.connect().await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: cloister\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; STATUS_LINE];
    stream.read_exact(&mut line).await?;
    let code = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..));
    let code =
        code.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP"))
}

/// Whether `path` exists below `root`. Symbolic links stay below it.
pub(super) fn file(root: &Path, path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())
        .and_then(|root| openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_cannot_lead_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/version", folder.path().join("out")).unwrap();
        assert!(!file(folder.path(), "/out"));
        assert!(!file(folder.path(), "/../../proc/version"));
        std::fs::write(folder.path().join("in"), "").unwrap();
        assert!(file(folder.path(), "/in"));
    }
}
