//! A writer in a process that has no descriptor left to wait for room with. It has a process of its own, because the limit
//! is the process's.
#![cfg(test)]

use std::fs::File;
use std::os::unix::net::UnixStream;

use cloister_net::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than a Unix socket takes without a reader.
const BYTES: usize = 4 << 20;

#[tokio::test]
async fn a_write_waits_for_means_and_goes_on_when_they_are_back() {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let (mut writer, mut reader) = (Stream::local(near.into()).unwrap(), Stream::local(far.into()).unwrap());
    let limit = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let writing = tokio::spawn(async move {
        writer.write_all(&vec![7; BYTES]).await?;
        writer.shutdown().await
    });
    tokio::task::yield_now().await;
    assert!(!writing.is_finished(), "there is no descriptor to wait with");
    drop(hoard);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), BYTES);
    writing.await.unwrap().unwrap();
}
