//! A simulated QEMU: it prints a version and a console, serves QMP, and exits when its vsock device requests it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

/// QEMU's name.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// The vsock device's name.
pub(crate) const VSOCK: &str = "vhost-device-vsock";

/// The device's request to QEMU: reboot the guest.
pub(crate) const REBOOT: u8 = b'R';

/// Simulates QEMU.
#[expect(clippy::print_stdout, reason = "the simulated machine's console is its standard output")]
pub(crate) fn qemu() {
    let argv: Vec<String> = std::env::args().collect();
    if argv.iter().any(|word| word == "--version") {
        println!("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)");
        return;
    }
    assert!(std::env::var("FAKE_QEMU").as_deref() != Ok("refuse"), "cannot allocate memory");
    let initrd = value(&argv, "-initrd");
    assert!(std::fs::read(initrd).unwrap().starts_with(b"os ramdisk"));
    let clients = serve_qmp();
    let mut device = UnixStream::connect("vhost.sock").unwrap();
    println!("stage 1/9 mounts: done, 1 ms");
    run(&mut device, &clients);
}

/// Copies the device's output to the console; at its end, the guest reboots.
fn run(device: &mut UnixStream, clients: &Mutex<Vec<UnixStream>>) {
    let mut lines = BufReader::new(device);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).unwrap_or_default() > 0 {
        if line.first() == Some(&REBOOT) {
            let event = br#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#;
            for mut client in clients.lock().unwrap().drain(..) {
                drop(client.write_all(&[event.as_slice(), b"\n"].concat()));
            }
            return;
        }
        std::io::stdout().write_all(&line).unwrap();
        line.clear();
    }
    // Like the real QEMU, it does not notice that its device is gone.
    std::thread::park();
}

fn serve_qmp() -> Arc<Mutex<Vec<UnixStream>>> {
    let listener = UnixListener::bind("qmp.sock").unwrap();
    let clients = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&clients);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            client.write_all(b"{\"QMP\":{\"version\":{}}}\n").unwrap();
            let mut command = [0; 31];
            client.read_exact(&mut command).unwrap();
            client.write_all(b"{\"return\":{}}\n").unwrap();
            kept.lock().unwrap().push(client);
        }
    });
    clients
}

fn value<'a>(argv: &'a [String], option: &str) -> &'a str {
    let at = argv.iter().position(|word| word == option).unwrap();
    &argv[at + 1]
}
