//! Whose listener it is, with this process as the service, and other processes of its own.

use std::path::Path;

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;

/// A service whose cgroup has this process in it, or nobody.
fn port(folder: &TempDir, is_member: bool, port: u16) -> ServicePort {
    let cgroup = folder.path().join("web");
    std::fs::create_dir_all(&cgroup).unwrap();
    let members = if is_member { format!("{}\n", std::process::id()) } else { String::new() };
    std::fs::write(cgroup.join("cgroup.procs"), members).unwrap();
    let paths =
        Paths { proc: Path::new("/proc").to_owned(), cgroups: folder.path().to_owned(), ..Paths::default() };
    Listeners::new(&paths).port("web", port)
}

async fn listen(at: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind(at).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn refusal(port: &ServicePort) -> String {
    port.connect(false).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_service_is_reached_wherever_on_the_loopback_interface_it_listens() {
    let folder = TempDir::new().unwrap();
    for at in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let (listener, number) = listen(at).await;
        let port = port(&folder, true, number);
        for _ in 0..3 {
            let stream = port.connect(false).await.unwrap_or_else(|error| panic!("{at}: {error}"));
            let (_, from) = listener.accept().await.unwrap();
            drop((stream, from));
        }
    }
}

#[tokio::test]
async fn a_port_where_nothing_listens_names_both_addresses() {
    let folder = TempDir::new().unwrap();
    let (listener, number) = listen("127.0.0.1:0").await;
    let port = port(&folder, true, number);
    drop(port.connect(false).await.unwrap());
    drop(listener);
    assert_eq!(refusal(&port).await, format!("nothing listens on 127.0.0.1:{number} or [::1]:{number}"));
}

#[tokio::test]
async fn a_listener_of_another_program_is_never_connected_to() {
    let folder = TempDir::new().unwrap();
    let (listener, number) = listen("127.0.0.1:0").await;
    let stranger = port(&folder, false, number);
    let expected = format!("what listens on 127.0.0.1:{number} is no process of web");
    assert_eq!(refusal(&stranger).await, expected);
    assert_eq!(refusal(&stranger).await, expected, "as it was found before");
    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "it was connected to");
}

#[tokio::test]
async fn a_service_on_one_address_is_reached_although_another_program_has_the_other() {
    let folder = TempDir::new().unwrap();
    let (mut child, number) = stranger("127.0.0.1:0");
    let (listener, _) = listen(&format!("[::1]:{number}")).await;
    let port = port(&folder, true, number);
    let _stream = port.connect(false).await.unwrap();
    listener.accept().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_port_that_changes_hands_is_noticed_at_the_next_connection() {
    let folder = TempDir::new().unwrap();
    let (listener, number) = listen("127.0.0.1:0").await;
    let port = port(&folder, true, number);
    drop(port.connect(false).await.unwrap());
    drop(listener);
    let (mut child, _) = stranger(&format!("127.0.0.1:{number}"));
    // At first the lists may be those of the service's time.
    while !refusal(&port).await.ends_with("is no process of web") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (listener, _) = listen(&format!("127.0.0.1:{number}")).await;
    let mut connected = port.connect(true).await;
    while connected.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        connected = port.connect(true).await;
    }
    listener.accept().await.unwrap();
}

/// Another process that listens: this test's own socket, handed to a program that does nothing with it.
fn stranger(at: &str) -> (std::process::Child, u16) {
    let listener = std::net::TcpListener::bind(at).unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = std::os::fd::OwnedFd::from(listener);
    let child = std::process::Command::new("sleep").arg("1000").stdin(socket).spawn().unwrap();
    (child, port)
}

#[tokio::test]
async fn connections_look_through_descriptors_only_when_the_service_listens_anew() {
    let folder = TempDir::new().unwrap();
    let (listener, number) = listen("127.0.0.1:0").await;
    let port = port(&folder, true, number);
    drop(port.connect(false).await.unwrap());
    // From now on nobody could find out which processes the service has.
    std::fs::remove_file(folder.path().join("web/cgroup.procs")).unwrap();
    drop(port.connect(false).await.unwrap());
    tokio::time::sleep(FRESH).await;
    drop(port.connect(false).await.expect("the same socket listens"));
    drop(listener);
    let (_listener, _) = listen(&format!("127.0.0.1:{number}")).await;
    assert!(port.connect(false).await.is_err(), "another one does");
}

#[tokio::test]
async fn a_socket_that_listens_no_more_is_not_taken_for_a_listener() {
    let folder = TempDir::new().unwrap();
    let (listener, number) = listen("127.0.0.1:0").await;
    let port = port(&folder, true, number);
    drop(port.connect(false).await.unwrap());
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    assert!(refusal(&port).await.starts_with("nothing listens"));
}
