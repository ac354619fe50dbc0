//! A writer in a process without a free descriptor for waiting until the socket is writable. It runs in its own
//! process, because the limit applies to the process.
#![cfg(test)]

use std::fs::File;
use std::os::unix::net::UnixStream;

use cloister_net::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than a Unix socket accepts without a reader.
const BYTES: usize = 4 << 20;

#[tokio::test]
async fn a_write_waits_for_a_descriptor_and_then_continues() {
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
    assert!(!writing.is_finished(), "no descriptor is free to wait with");
    drop(hoard);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), BYTES);
    writing.await.unwrap().unwrap();
}
