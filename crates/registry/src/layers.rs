//! Downloads of layers, several in parallel.
//!
//! Invariant: a layer is stored only if its length and digest are correct. A download that breaks after it has received data is
//! resumed where it broke.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use cloister_image::digest::{Digest, Hashed};
use cloister_image::oci::Descriptor;
use tempfile::NamedTempFile;
use ureq::http::StatusCode;

use super::cache::Cache;
use super::client::Client;
use super::error::RegistryError;
use super::pull::{Event, Pull};

/// Number of layers fetched in parallel: Docker's default (`max-concurrent-downloads`).
const AT_ONCE: usize = 3;

/// Maximum number of connections for one layer, regardless of progress: a layer that arrives in ever smaller pieces is aborted.
const MAX_CONNECTIONS: usize = 20;

/// Size of one read in bytes.
const CHUNK: usize = 128 * 1024;

/// Fetches every layer that is not in the cache.
pub(super) fn fetch(
    client: &Client<'_>,
    cache: &Cache,
    layers: &[Descriptor],
    pull: &Pull<'_>,
) -> Result<(), RegistryError> {
    let missing = layers.iter().map(|layer| (layer.digest, layer.size));
    let missing: BTreeMap<Digest, u64> =
        missing.filter(|(digest, size)| !cache.has_layer(digest, *size)).collect();
    let waiting = Mutex::new(missing.into_iter().collect::<Vec<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some((digest, size)) = next() {
            (pull.report)(Event::Fetching(digest, size));
            if let Err(error) = fetch_one(client, cache, pull, digest, size) {
                // The other threads finish their current layer and begin no other.
                waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(error);
            }
            (pull.report)(Event::Fetched(digest));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let stopped = |_| RegistryError::Protocol {
            registry: client.name().to_owned(),
            what: "a download thread failed",
        };
        workers.into_iter().try_for_each(|worker| worker.join().map_err(stopped)?)
    })
}

fn fetch_one(
    client: &Client<'_>,
    cache: &Cache,
    pull: &Pull<'_>,
    digest: Digest,
    size: u64,
) -> Result<(), RegistryError> {
    let mut download = Download { client, cache, pull, digest, size, file: Hashed::new(cache.start()?) };
    let mut retry = client.retry();
    for connection in 1.. {
        let before = download.file.count();
        match download.resume() {
            Ok(()) => break,
            Err(error) if connection >= MAX_CONNECTIONS => return Err(error),
            Err(error) if error.is_passing() && download.file.count() > before => retry.progress(),
            Err(error) => client.wait(&mut retry, error)?,
        }
    }
    let (file, found) = download.file.finish();
    if found == digest {
        cache.store(&digest, file)
    } else {
        Err(RegistryError::Digest { expected: digest, found })
    }
}

/// A layer that is partly downloaded.
struct Download<'a> {
    client: &'a Client<'a>,
    cache: &'a Cache,
    pull: &'a Pull<'a>,
    digest: Digest,
    size: u64,
    file: Hashed<NamedTempFile>,
}

impl Download<'_> {
    /// Fetches the missing part over one connection, as far as that gets.
    fn resume(&mut self) -> Result<(), RegistryError> {
        let response = self.client.get(&self.client.blob(&self.digest), self.file.count())?;
        if response.status() != StatusCode::PARTIAL_CONTENT && self.file.count() > 0 {
            // The response begins at the beginning again, so the file does too.
            self.file = Hashed::new(self.cache.start()?);
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = body.read(&mut buffer).map_err(|source| self.client.server().broken(source))?;
            if count == 0 {
                break;
            }
            let chunk = buffer.get(..count).unwrap_or_default();
            self.pull.check_cancelled()?;
            self.file.write_all(chunk).map_err(|source| self.cache.error(source))?;
            if self.file.count() > self.size {
                return Err(RegistryError::TooLong { limit: self.size });
            }
        }
        if self.file.count() == self.size {
            return Ok(());
        }
        Err(self.client.server().broken(std::io::ErrorKind::UnexpectedEof.into()))
    }
}
