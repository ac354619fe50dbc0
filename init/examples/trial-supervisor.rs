//! A supervisor for trials of init by hand: it runs one service, says on the console what init tells it, and powers off
//! when the service ends.
//!
//! Its law: it is never shipped. `/cloister/trial`, one word, chooses what it does wrong; docs/init.md has the commands.

use std::error::Error;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};

use cloister_sys::fdpass::recv_with_fds;
use cloister_wire::control::{Exit, State};
use cloister_wire::frame::{Decoder, HOLD_LIMIT, encode};
use cloister_wire::hold::{FromInit, FromSupervisor, Limits, SUPERVISOR_FD, Spawn};

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
    let mut channel = Trial { channel, decoder: Decoder::new(HOLD_LIMIT), fds: Vec::new() };
    loop {
        let message = channel.receive()?;
        say(&format!("trial: {message:?}"));
        channel.answer(message)?;
    }
}

struct Trial {
    channel: OwnedFd,
    decoder: Decoder,
    fds: Vec<OwnedFd>,
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

    fn ask(&mut self, request: &FromSupervisor) -> Result<(), Box<dyn Error>> {
        rustix::io::write(&self.channel, &encode(request, HOLD_LIMIT)?)?;
        Ok(())
    }

    fn answer(&mut self, message: FromInit) -> Result<(), Box<dyn Error>> {
        match message {
            FromInit::Welcome(welcome) if welcome.held.is_empty() => {
                self.ask(&FromSupervisor::Stash { name: "log.web.out".into() })?;
                self.ask(&FromSupervisor::MountRoot { writable_bytes: 64 << 20 })
            }
            FromInit::RootMounted { .. } => {
                self.ask(&FromSupervisor::Spawn { name: "web".into(), spec: Box::new(service()?) })
            }
            FromInit::SpawnFailed { error, .. } => self.power_off(127, &error),
            FromInit::Exited(ended) => {
                self.output();
                match ended.exit {
                    Exit::Code(code) => self.power_off(code, ""),
                    other => self.power_off(255, &format!("{other:?}")),
                }
            }
            FromInit::StopAsked { why } => self.power_off(0, &why),
            _ => Ok(()),
        }
    }

    fn output(&self) {
        for fd in &self.fds {
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = rustix::io::read(fd, &mut buffer) {
                say(&String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()));
            }
        }
    }

    fn power_off(&mut self, code: u8, why: &str) -> Result<(), Box<dyn Error>> {
        say(&format!("trial: the end, {code} {why}"));
        self.ask(&FromSupervisor::PowerOff { state: State::Exited { service: "web".into(), code } })
    }
}

/// The service: `/cloister/spawn.json`, or a shell that looks around.
fn service() -> Result<Spawn, Box<dyn Error>> {
    if let Ok(text) = std::fs::read("/cloister/spawn.json") {
        return Ok(serde_json::from_slice(&text)?);
    }
    Ok(Spawn {
        argv: vec!["/bin/sh".into(), "/look".into()],
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![],
        capabilities: 0,
        seccomp: vec![],
        writable: None,
        files: vec![],
        limits: Limits::default(),
        fds: 0,
    })
}

fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
