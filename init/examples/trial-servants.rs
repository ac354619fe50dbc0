//! A supervisor that starts servants and reports their state, for the scenario that checks it from outside. With the argument
//! `servant` the same program is such a servant and reports what it sees.
//!
//! Invariant: it is never shipped, and it judges nothing: each line on the console is a fact, `trial: NAME: VALUE`.

use std::collections::VecDeque;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use cloister_sys::fdpass::{recv_with_fds, send_with_fds};
use cloister_wire::control::State;
use cloister_wire::frame::{Decoder, HOLD_LIMIT, encode};
use cloister_wire::hold::{
    FromInit, FromSupervisor, Held, Limits, MAX_STASHES, PROGRAM_FD, Place, SUPERVISOR_FD, SignalTarget,
    Spawn,
};
use rustix::fs::{Mode, OFlags};

/// This program in ramdisk 1, as the supervisor and as a servant.
const PROGRAM: &str = "/sbin/supervisor";

/// Descriptors given to the servant: many, so that their numbers collide with those that init uses itself.
const GIVEN: u8 = 200;

/// The content of each of the given descriptors.
const CONTENT: &[u8] = b"given";

/// The last line of a servant's report.
const LAST: &str = "servant: done";

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("servant") => servant(),
        Some(_) => {
            // The filter does not allow this call.
            rustix::process::umask(Mode::empty());
            Ok(())
        }
        None => supervise(),
    }
}

// ---- the servant ----

fn servant() -> Result<(), Box<dyn Error>> {
    let root = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let names = rustix::fs::Dir::read_from(&root)?.filter_map(Result::ok);
    let names = names.filter(|entry| entry.file_name() != c"." && entry.file_name() != c"..").count();
    drop(root);
    print(&format!("servant: names in the root: {names}"));
    print(&format!("servant: working directory: {:?}", rustix::process::getcwd(Vec::new())?));
    print(&format!("servant: making a directory: {:?}", rustix::fs::mkdir("/directory", Mode::RWXU).err()));
    for path in ["/proc/self/status", "/dev/null", "/sys/fs/cgroup", "/sbin/supervisor", "/../init", "/tmp"] {
        let opened = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).err();
        print(&format!("servant: opening {path}: {opened:?}"));
    }
    print(&format!("servant: pid: {}", rustix::process::getpid()));
    let environment: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    print(&format!("servant: environment: {}", environment.join(" ")));
    let open: Vec<i32> = (0..=PROGRAM_FD.saturating_mul(2)).filter(|number| is_open(*number)).collect();
    let ends = (open.first().copied(), open.last().copied(), open.len());
    print(&format!("servant: open descriptors: {ends:?}"));
    let given = (3..3_i32.saturating_add(i32::from(GIVEN))).filter(|number| is_given(*number)).count();
    print(&format!("servant: descriptors with what was given: {given}"));
    print(LAST);
    // Until it is killed: process 1 ignores signals without a handler.
    rustix::event::poll(&mut [], None)?;
    Ok(())
}

#[expect(unsafe_code, reason = "queries numbers that may not be open")]
fn numbered(number: i32) -> BorrowedFd<'static> {
    // SAFETY: nothing here closes a descriptor; a number that is not open is refused by the kernel.
    unsafe { BorrowedFd::borrow_raw(number) }
}

fn is_open(number: i32) -> bool {
    rustix::io::fcntl_getfd(numbered(number)).is_ok()
}

fn is_given(number: i32) -> bool {
    let mut bytes = [0; CONTENT.len()];
    rustix::io::pread(numbered(number), &mut bytes, 0).is_ok() && bytes == CONTENT
}

// ---- the supervisor ----

struct Trial {
    channel: OwnedFd,
    decoder: Decoder,
    fds: VecDeque<OwnedFd>,
    stashed: usize,
}

fn supervise() -> Result<(), Box<dyn Error>> {
    #[expect(unsafe_code, reason = "init puts the socket there before this program starts")]
    // SAFETY: descriptor 3 is the channel by contract, and nothing else here owns it.
    let channel = unsafe { OwnedFd::from_raw_fd(SUPERVISOR_FD) };
    let decoder = Decoder::new(HOLD_LIMIT);
    let mut trial = Trial { channel, decoder, fds: VecDeque::new(), stashed: 0 };
    loop {
        let message = trial.receive()?;
        trial.answer(message)?;
    }
}

impl Trial {
    fn answer(&mut self, message: FromInit) -> Result<(), Box<dyn Error>> {
        match message {
            FromInit::Welcome(welcome) if welcome.restarts == 0 => {
                for number in 0..MAX_STASHES {
                    self.request(&FromSupervisor::Stash { name: format!("kept.@{number}"), fds: 0 }, &[])?;
                }
            }
            FromInit::Welcome(welcome) => self.take_over(&welcome.stash, &welcome.held)?,
            FromInit::Stashed { name } => self.stashed(&name)?,
            FromInit::Spawned { name, .. } if name == "@trial" => return Err("crashes as planned".into()),
            FromInit::Exited(ended) => {
                fact(&format!("end of {}", ended.name), &format!("{:?}", ended.exit));
                self.request(&FromSupervisor::Forget { name: ended.name.clone() }, &[])?;
                if ended.name == "@trial" { self.refusals()? } else { self.power_off()? }
            }
            FromInit::SpawnFailed { name, step, errno, error } => {
                fact(&format!("start of {name}"), &format!("{step} {errno} {error}"));
                if name == "@no-exec" {
                    self.spawn("@refused", PROGRAM, "refused", true, &[])?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes a memfd's name into it, and starts the servant once all exist.
    fn stashed(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        let memfd = self.fds.pop_front().ok_or("a stash without its descriptor")?;
        rustix::io::write(&memfd, name.as_bytes())?;
        self.stashed = self.stashed.saturating_add(1);
        if self.stashed == MAX_STASHES {
            let given = fs::File::options().read(true).write(true).create_new(true).open("/run/given")?;
            (&given).write_all(CONTENT)?;
            let given = vec![given.as_fd(); usize::from(GIVEN)];
            self.spawn("@trial", PROGRAM, "servant", true, &given)?;
        }
        Ok(())
    }

    /// The second supervisor: reports what it receives from the first, and the servant as the kernel shows it.
    fn take_over(&mut self, stash: &[String], held: &[Held]) -> Result<(), Box<dyn Error>> {
        fact("stashes", &stash.len().to_string());
        let mut intact = 0;
        for name in stash {
            let memfd = self.fds.pop_front().ok_or("a stash without its descriptor")?;
            let mut bytes = vec![0; name.len()];
            rustix::io::pread(&memfd, &mut bytes, 0)?;
            intact += usize::from(bytes == name.as_bytes());
        }
        fact("stashes with their own content", &intact.to_string());
        let [servant] = held else { return Err("there is not one servant".into()) };
        fact("held", &format!("{} {} {}", servant.name, servant.populated, servant.fds));
        let output = self.fds.pop_front().ok_or("no output")?;
        report(&output)?;
        inspect(servant)?;
        let kill = FromSupervisor::Signal { name: servant.name.clone(), signal: 9, to: SignalTarget::Main };
        self.request(&kill, &[])
    }

    /// Servants that must not start. They are followed by one that makes a call that its filter does not allow.
    fn refusals(&mut self) -> Result<(), Box<dyn Error>> {
        self.spawn("@missing", "/sbin/none", "servant", true, &[])?;
        self.spawn("plain", PROGRAM, "servant", true, &[])?;
        self.spawn("@no-exec", PROGRAM, "servant", false, &[])
    }

    fn spawn(
        &self,
        name: &str,
        program: &str,
        role: &str,
        exec: bool,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Box<dyn Error>> {
        let spec = Box::new(Spawn {
            argv: vec![program.into(), role.into()],
            env: vec!["A=b".into()],
            place: Place::Empty,
            uid: 4242,
            gid: 4243,
            groups: vec![],
            capabilities: 0,
            seccomp: filter(exec),
            limits: Limits { memory: Some(16 << 20), cpu_millis: None, pids: Some(7), open_files: Some(512) },
            fds: u8::try_from(fds.len())?,
        });
        self.request(&FromSupervisor::Spawn { name: name.into(), spec }, fds)
    }

    fn power_off(&self) -> Result<(), Box<dyn Error>> {
        let state = State::Exited { service: "@trial".into(), code: 0 };
        self.request(&FromSupervisor::PowerOff { state }, &[])
    }

    fn request(&self, request: &FromSupervisor, fds: &[BorrowedFd<'_>]) -> Result<(), Box<dyn Error>> {
        let bytes = encode(request, HOLD_LIMIT)?;
        let mut rest = bytes.as_slice();
        let mut fds = fds;
        while !rest.is_empty() {
            match send_with_fds(&self.channel, rest, fds) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    fds = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.channel, rustix::event::PollFlags::OUT)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<FromInit, Box<dyn Error>> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            wait(&self.channel, rustix::event::PollFlags::IN)?;
            let mut buffer = [0; 4096];
            let (n, fds) = recv_with_fds(&self.channel, &mut buffer)?;
            if n == 0 {
                return Err("init closed the channel".into());
            }
            self.fds.extend(fds);
            self.decoder.push(buffer.get(..n).unwrap_or_default());
        }
    }
}

fn wait(fd: &OwnedFd, what: rustix::event::PollFlags) -> io::Result<()> {
    rustix::event::poll(&mut [rustix::event::PollFd::new(fd, what)], None)?;
    Ok(())
}

/// Forwards the servant's output, to its last line.
fn report(output: &OwnedFd) -> Result<(), Box<dyn Error>> {
    let mut text = String::new();
    while !text.contains(LAST) {
        wait(output, rustix::event::PollFlags::IN)?;
        let mut buffer = [0; 4096];
        let n = rustix::io::read(output, &mut buffer)?;
        if n == 0 {
            return Err(format!("the servant ended early: {text}").into());
        }
        text.push_str(&String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()));
    }
    text.lines().for_each(|line| print(&format!("trial: {line}")));
    Ok(())
}

/// Reports the servant from outside.
fn inspect(servant: &Held) -> Result<(), Box<dyn Error>> {
    let proc = format!("/proc/{}", servant.pid);
    for line in fs::read_to_string(format!("{proc}/status"))?.lines() {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if matches!(name, "Uid" | "Gid" | "Groups" | "NoNewPrivs" | "Seccomp") || name.starts_with("Cap") {
            fact(name, &value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup", "net"] {
        let [its, ours] = [&*proc, "/proc/self"].map(|of| fs::read_link(format!("{of}/ns/{kind}")));
        fact(&format!("{kind} namespace"), if its? == ours? { "shared" } else { "its own" });
    }
    fact("mounts", &fs::read_to_string(format!("{proc}/mountinfo"))?.lines().count().to_string());
    fact("descriptors", &fs::read_dir(format!("{proc}/fd"))?.count().to_string());
    fact("cgroup", fs::read_to_string(format!("{proc}/cgroup"))?.trim());
    for file in ["memory.max", "memory.oom.group", "pids.max"] {
        let value = fs::read_to_string(format!("/sys/fs/cgroup/servants/@trial/{file}"))?;
        fact(file, value.trim());
    }
    fact("oom_score_adj", fs::read_to_string(format!("{proc}/oom_score_adj"))?.trim());
    Ok(())
}

fn fact(name: &str, value: &str) {
    print(&format!("trial: {name}: {value}"));
}

fn print(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}

// ---- the filter ----

/// Calls of the C library and the standard library at the start and the exit of a program, and those that the servant tries.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_set_tid_address,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_ppoll,
    libc::SYS_exit_group,
    libc::SYS_openat,
    libc::SYS_mkdirat,
    libc::SYS_getdents64,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_getcwd,
    libc::SYS_getpid,
    libc::SYS_fcntl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K` and `BPF_RET | BPF_K` (`linux/bpf_common.h`).
const LOAD: u64 = 0x20;
const EQUAL: u64 = 0x15;
const RETURN: u64 = 0x06;

/// `SECCOMP_RET_ALLOW` and `SECCOMP_RET_KILL_PROCESS` (`linux/seccomp.h`).
const ALLOW: u64 = 0x7FFF_0000;
const KILL: u64 = 0x8000_0000;

/// Offsets in `struct seccomp_data` of the call's number, its first and its fifth argument (the low halves, little endian).
const NUMBER: u64 = 0;
const FIRST: u64 = 16;
const FIFTH: u64 = 48;

/// Allows [`CALLS`], and `execveat` with init's own arguments where it is to be allowed; anything else kills.
fn filter(exec: bool) -> Vec<u64> {
    let jump = |value: u64, yes: u64, no: u64| EQUAL << 48 | yes << 40 | no << 32 | value;
    let number = |call: libc::c_long| u64::try_from(call).unwrap_or_default();
    let mut program = vec![LOAD << 48 | NUMBER];
    for call in CALLS {
        program.extend([jump(number(*call), 0, 1), RETURN << 48 | ALLOW]);
    }
    if exec {
        let (fd, flags) = (PROGRAM_FD.unsigned_abs(), libc::AT_EMPTY_PATH.unsigned_abs());
        program.extend([
            jump(number(libc::SYS_execveat), 0, 5),
            LOAD << 48 | FIRST,
            jump(fd.into(), 0, 3),
            LOAD << 48 | FIFTH,
            jump(flags.into(), 0, 1),
            RETURN << 48 | ALLOW,
        ]);
    }
    program.push(RETURN << 48 | KILL);
    program
}
