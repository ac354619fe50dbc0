//! The kernel's own vsock: `AF_VSOCK`, by CID.

use std::io;

use cloister_sys::vsock::Address;

use super::contract::{Pending, Stream, Transport, with_limit};

/// An enclave with a CID on this host.
#[derive(Debug)]
pub(crate) struct Kernel {
    cid: u32,
}

impl Kernel {
    /// The enclave with this CID.
    pub(crate) const fn new(cid: u32) -> Self {
        Self { cid }
    }
}

impl Transport for Kernel {
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
        Box::pin(with_limit(Stream::connect_vsock(Address { cid: self.cid, port })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connecting_to_a_missing_enclave_fails_in_time() {
        assert!(Kernel::new(4_000_000_000).connect(17000).await.is_err());
    }
}
