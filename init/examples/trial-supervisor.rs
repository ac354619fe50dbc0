//! A supervisor for manual trials of init: it runs one service after the other, prints init's messages and the services' output
//! on the console, and powers off when the last has exited.
//!
//! Invariant: it is never shipped. `/cloister/trial`, one word, selects its failure; see docs/init.md.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};

use cloister_sys::fdpass::recv_with_fds;
use cloister_wire::control::{Exit, State};
use cloister_wire::frame::{Decoder, HOLD_LIMIT, encode};
use cloister_wire::hold::{FromInit, FromSupervisor, SUPERVISOR_FD, SignalTarget, Spawn};

fn main() -> Result<(), Box<dyn Error>> {
    let trial = std::fs::read_to_string("/cloister/trial").unwrap_or_default();
    match trial.trim() {
        "panic" => std::process::abort(),
        "exit" => return Ok(()),
        _ => {}
    }
    #[expect(unsafe_code, reason = "init puts the socket there before this program starts")]
    // SAFETY: descriptor 3 is the channel by contract, and nothing else here owns it.
    let channel = unsafe { OwnedFd::from_raw_fd(SUPERVISOR_FD) };
    let left = services()?;
    let mut channel = Trial { channel, decoder: Decoder::new(HOLD_LIMIT), fds: Vec::new(), left, code: 0 };
    loop {
        let message = channel.receive()?;
        print(&format!("trial: {message:?}"));
        channel.answer(message)?;
    }
}

struct Trial {
    channel: OwnedFd,
    decoder: Decoder,
    fds: Vec<OwnedFd>,
    left: VecDeque<Spawn>,
    code: u8,
}

impl Trial {
    fn receive(&mut self) -> Result<FromInit, Box<dyn Error>> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(&self.channel, rustix::event::PollFlags::IN)],
                None,
            )?;
            let mut buffer = [0; 4096];
            let (n, fds) = recv_with_fds(&self.channel, &mut buffer)?;
            if n == 0 {
                return Err("init closed the channel".into());
            }
            self.fds.extend(fds);
            self.decoder.push(buffer.get(..n).unwrap_or_default());
        }
    }

    fn request(&mut self, request: &FromSupervisor) -> Result<(), Box<dyn Error>> {
        rustix::io::write(&self.channel, &encode(request, HOLD_LIMIT)?)?;
        Ok(())
    }

    fn answer(&mut self, message: FromInit) -> Result<(), Box<dyn Error>> {
        match message {
            FromInit::Welcome(welcome) if welcome.held.is_empty() => {
                self.request(&FromSupervisor::Stash { name: "log.web.out".into(), fds: 0 })?;
                self.request(&FromSupervisor::MountRoot { writable_bytes: 64 << 20, reserved_bytes: 0 })
            }
            FromInit::RootMounted { .. } => self.next(),
            FromInit::SpawnFailed { .. } => {
                self.code = 127;
                self.next()
            }
            FromInit::Exited(ended) => {
                self.output();
                self.code = if let Exit::Code(code) = ended.exit { code } else { 255 };
                self.request(&FromSupervisor::Signal {
                    name: "web".into(),
                    signal: 9,
                    to: SignalTarget::Cgroup,
                })
            }
            FromInit::Emptied { .. } => {
                self.request(&FromSupervisor::Forget { name: "web".into() })?;
                self.next()
            }
            FromInit::StopRequested { .. } => self.power_off(),
            _ => Ok(()),
        }
    }

    fn next(&mut self) -> Result<(), Box<dyn Error>> {
        match self.left.pop_front() {
            Some(spec) => self.request(&FromSupervisor::Spawn { name: "web".into(), spec: Box::new(spec) }),
            None => self.power_off(),
        }
    }

    fn output(&mut self) {
        for fd in self.fds.drain(..) {
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = rustix::io::read(&fd, &mut buffer) {
                print(&String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()));
            }
        }
    }

    fn power_off(&mut self) -> Result<(), Box<dyn Error>> {
        self.request(&FromSupervisor::PowerOff {
            state: State::Exited { service: "web".into(), code: self.code },
        })
    }
}

/// The services of `/cloister/spawn.json`, a list.
fn services() -> Result<VecDeque<Spawn>, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read("/cloister/spawn.json")?)?)
}

fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
