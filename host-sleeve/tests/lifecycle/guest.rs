//! A simulated guest behind a simulated vsock device: it uses the real wire protocol and follows a script.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cloister_wire::control::{
    Cause, FinishedStage, FromGuest, FromHost, IngressCounters, Phase, Reply, Request, ServiceStats,
    ServiceStatus, State, Stats, Status, frames,
};
use cloister_wire::frame::{Decoder, HOST_LIMIT, encode, encode_bytes};
use cloister_wire::hello::{Hello, Protocol, Role, VERSION};
use cloister_wire::logs::{END, Record, Stream, Subscribe};

use rustix::event::{EventfdFlags, epoll, eventfd};

use super::attestor;
use super::machine::REBOOT;

/// The guest's behaviour, from `FAKE_GUEST`.
#[derive(Clone, Debug, PartialEq)]
enum Script {
    /// It becomes ready and serves until it receives a stop request.
    Serve,
    /// It prints something and exits with this code.
    Exit(u8),
    /// Its service is killed by this signal.
    Signal(u8),
    /// As [`Self::Serve`], and it uses the development security module.
    Attests,
    /// It never sends anything.
    Mute,
    /// Its kernel panics.
    Panic,
    /// Init fails and reports that on the console only.
    Fatal,
    /// It speaks an unknown version of the protocol.
    OtherVersion,
    /// It does not stop on request.
    Stubborn,
    /// Its supervisor disconnects and comes back.
    Restarts,
    /// It prints this many bytes on one line, and then a short line.
    LongLine(usize),
    /// It prints this many bytes and serves until it receives a stop request.
    Talks(usize),
    /// Its kernel prints this many lines of a thousand bytes, and it serves until it receives a stop request.
    Console(usize),
    /// It prints bytes that are not UTF-8.
    Raw,
    /// It alternates between ready and degraded this many times, with long explanations, and exits.
    Flaps(usize),
}

struct Guest {
    script: Script,
    state: Mutex<(State, u64)>,
    changed: Condvar,
    qemu: Mutex<UnixStream>,
}

/// Simulates the vsock device and everything behind it.
pub(crate) fn vsock_device() {
    let device = std::env::args().nth(2).unwrap();
    assert!(device.contains("uds-path=vsock.sock"), "{device}");
    if std::env::var("FAKE_VSOCK").as_deref() == Ok("hangs") {
        // It starts but never listens.
        std::thread::park();
    }
    let ports = UnixListener::bind("vsock.sock").unwrap();
    let vhost = UnixListener::bind("vhost.sock").unwrap();
    let (qemu, _) = vhost.accept().unwrap();
    let _queues = take_queues();
    let guest = Arc::new(Guest {
        script: script(),
        state: Mutex::new((State::Booting, 1)),
        changed: Condvar::new(),
        qemu: Mutex::new(qemu),
    });
    let behaviour = Arc::clone(&guest);
    std::thread::spawn(move || behaviour.run());
    let mut accepted = 0;
    for stream in ports.incoming().flatten() {
        accepted += 1;
        let (guest, number) = (Arc::clone(&guest), accepted);
        std::thread::spawn(move || guest.connection(stream, number));
    }
}

/// The visible state of a device after QEMU has passed it the queues: it waits for one descriptor of each.
fn take_queues() -> (OwnedFd, [OwnedFd; 2]) {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let queues = [0, 1].map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    for queue in &queues {
        epoll::add(&poll, queue, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
    }
    (poll, queues)
}

fn script() -> Script {
    let text = std::env::var("FAKE_GUEST").unwrap_or_default();
    let (word, number) = text.split_once(':').unwrap_or((&text, "0"));
    match word {
        "exit" => Script::Exit(number.parse().unwrap()),
        "signal" => Script::Signal(number.parse().unwrap()),
        "attests" => Script::Attests,
        "mute" => Script::Mute,
        "panic" => Script::Panic,
        "fatal" => Script::Fatal,
        "other-version" => Script::OtherVersion,
        "stubborn" => Script::Stubborn,
        "restarts" => Script::Restarts,
        "long-line" => Script::LongLine(number.parse().unwrap()),
        "talks" => Script::Talks(number.parse().unwrap()),
        "console" => Script::Console(number.parse().unwrap()),
        "raw" => Script::Raw,
        "flaps" => Script::Flaps(number.parse().unwrap()),
        _ => Script::Serve,
    }
}

impl Guest {
    fn run(&self) {
        match &self.script {
            Script::Mute | Script::Flaps(_) => {}
            Script::Panic => self.console("Kernel panic - not syncing: Attempted to kill init!\nR\n"),
            Script::Fatal => self.console(
                "cloister: end {\"state\":\"fatal\",\"stage\":\"mounts\",\"error\":\"no /proc\"}\nR\n",
            ),
            Script::Exit(code) => self.become_state(State::Exited { service: "web".into(), code: *code }),
            Script::LongLine(_) | Script::Raw => {
                self.become_state(State::Exited { service: "web".into(), code: 0 });
            }
            Script::Signal(signal) => {
                let (service, cause) = ("web".into(), Cause::Sent);
                self.become_state(State::Signaled { service, signal: *signal, cause });
            }
            Script::Console(lines) => {
                self.console(&format!("{}\n", "x".repeat(999)).repeat(*lines));
                self.become_state(State::Ready);
            }
            _ => self.become_state(State::Ready),
        }
    }

    fn console(&self, text: &str) {
        self.qemu.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn become_state(&self, state: State) {
        let mut now = self.state.lock().unwrap();
        *now = (state, now.1 + 1);
        self.changed.notify_all();
    }

    fn connection(&self, mut stream: UnixStream, number: u32) {
        let mut line = String::new();
        while !line.ends_with('\n') {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or_default() == 0 {
                return;
            }
            line.push(char::from(byte[0]));
        }
        if matches!(self.script, Script::Mute | Script::Panic | Script::Fatal) {
            return; // no process listens inside: the connection is closed
        }
        stream.write_all(b"OK 1024\n").unwrap();
        match line.trim() {
            "CONNECT 17000" => self.control(stream, number),
            "CONNECT 17001" => self.logs(stream),
            "CONNECT 17004" if self.script == Script::Attests => attestor::attest(stream),
            _ => {}
        }
    }

    fn control(&self, mut stream: UnixStream, number: u32) {
        let version = if self.script == Script::OtherVersion { 7 } else { VERSION };
        let hello = Hello { version, ..Hello::new(Protocol::Control, Role::Guest) };
        drop(stream.write_all(&encode(&hello, HOST_LIMIT).unwrap()));
        if self.script == Script::Restarts && number < 3 {
            drop(stream.write_all(&self.status().0));
            return;
        }
        if let Script::Flaps(turns) = self.script {
            self.flap(turns, &mut stream);
        }
        std::thread::scope(|scope| {
            let (reader, mut stream) = (&stream, &stream);
            scope.spawn(move || self.answer(reader));
            let (mut status, mut sent) = self.status();
            while stream.write_all(&status).is_ok() {
                let now = self.state.lock().unwrap();
                drop(self.changed.wait_timeout_while(now, Duration::from_mins(1), |now| now.1 <= sent));
                (status, sent) = self.status();
            }
        });
    }

    fn flap(&self, turns: usize, stream: &mut UnixStream) {
        for turn in 0..turns {
            let degraded = State::Degraded { why: "because ".repeat(500) };
            self.become_state(if turn % 2 == 0 { State::Ready } else { degraded });
            drop(stream.write_all(&self.status().0));
        }
        self.become_state(State::Exited { service: "web".into(), code: 0 });
    }

    fn answer(&self, stream: &UnixStream) {
        let mut stream = stream;
        let mut decoder = Decoder::new(HOST_LIMIT);
        let mut buffer = [0; 4096];
        assert!(hello(&mut stream, &mut decoder).check(Protocol::Control).is_ok());
        loop {
            while let Some(message) = decoder.next_message::<FromHost>().unwrap() {
                let reply = self.perform(&message.request);
                let frame = encode(&FromGuest::Reply { id: message.id, reply }, HOST_LIMIT).unwrap();
                drop(stream.write_all(&frame));
            }
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => decoder.push(&buffer[..count]),
                _ => return,
            }
        }
    }

    fn perform(&self, request: &Request) -> Reply {
        match request {
            Request::Stop => {
                self.become_state(State::Stopping { why: "the host asked".into() });
                if self.script != Script::Stubborn {
                    self.become_state(State::Exited { service: "web".into(), code: 0 });
                }
            }
            Request::Seen { .. } => self.console(&format!("{}\n", char::from(REBOOT))),
            Request::Service { .. } => {
                return Reply::Refused { why: "the manifest does not allow it".into() };
            }
            Request::Stats => {
                let stats = ServiceStats {
                    name: "web".into(),
                    cpu_us: 1_500_000,
                    memory: 3 << 20,
                    memory_peak: 4 << 20,
                    pids: 2,
                    oom_kills: 0,
                };
                let ingress = IngressCounters { accepted: 12, ..IngressCounters::default() };
                return Reply::Stats(Stats { services: vec![stats], servants: Vec::new(), ingress });
            }
            _ => {}
        }
        Reply::Done
    }

    fn status(&self) -> (Vec<u8>, u64) {
        let (state, seq) = self.state.lock().unwrap().clone();
        let service = ServiceStatus {
            name: "web".into(),
            phase: Phase::Ready,
            pid: Some(7),
            since_ms: 5,
            restarts: 0,
            last_exit: None,
            text: None,
            waits_for: None,
        };
        let status = Status {
            seq,
            state,
            platform: "virtual".into(),
            uptime_ms: 10,
            supervisor_restarts: 0,
            boot: vec![FinishedStage { name: "mounts".into(), at_us: 1, took_us: 2 }],
            services: vec![service],
            servants: Vec::new(),
            ingress: IngressCounters::default(),
            registers: Vec::new(),
            time: None,
        };
        (frames(status).unwrap().concat(), seq)
    }

    fn logs(&self, mut stream: UnixStream) {
        let mut decoder = Decoder::new(HOST_LIMIT);
        let hello_bytes = encode(&Hello::new(Protocol::Logs, Role::Guest), HOST_LIMIT).unwrap();
        drop(stream.write_all(&hello_bytes));
        hello(&mut stream, &mut decoder);
        let wanted: Subscribe = message(&mut stream, &mut decoder);
        for (seq, bytes) in (0_u64..).zip(self.output()).filter(|(seq, _)| *seq >= wanted.from) {
            let record =
                Record::Output { seq, time_ns: seq, service: "web".into(), stream: Stream::Stdout, bytes };
            let frame = encode_bytes(&record.to_bytes().unwrap(), HOST_LIMIT).unwrap();
            if stream.write_all(&frame).is_err() {
                return;
            }
        }
        if wanted.follow {
            let now = self.state.lock().unwrap();
            drop(self.changed.wait_while(now, |now| !now.0.is_final()));
        }
        drop(stream.write_all(&encode_bytes(END, HOST_LIMIT).unwrap()));
        // Until the host disconnects.
        drop(stream.read(&mut [0; 1]));
    }

    fn output(&self) -> Vec<Vec<u8>> {
        match self.script {
            Script::LongLine(length) | Script::Talks(length) => {
                let mut line = vec![b'x'; length];
                line.extend_from_slice(b"\nafter the long line\n");
                line.chunks(30 * 1024).map(<[u8]>::to_vec).collect()
            }
            Script::Raw => vec![b"before \xff\xfe\0\x80 after\n".to_vec()],
            _ => vec![b"hello from the guest\n".to_vec(), b"half a ".to_vec(), b"line\n".to_vec()],
        }
    }
}

fn hello(stream: &mut impl Read, decoder: &mut Decoder) -> Hello {
    message(stream, decoder)
}

fn message<M: serde::de::DeserializeOwned>(stream: &mut impl Read, decoder: &mut Decoder) -> M {
    let mut buffer = [0; 4096];
    loop {
        if let Some(message) = decoder.next_message().unwrap() {
            return message;
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the host disconnected before it sent a message");
        decoder.push(&buffer[..count]);
    }
}
