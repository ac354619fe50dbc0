//! What is no fault of a manifest and may still surprise its author.
//!
//! Its law: a note gives the line that decides the matter and where it belongs; whoever has written that line, or another that
//! answers the question, does not get the note.

use super::check::Plan;
use super::document;
use super::healthcheck;
use super::image::{Image, ImageConfig};
use super::resolve::exposed;
use crate::model::{Kind, Manifest, Service};

/// Programs that end at once unless they are process 1: s6-overlay, sysvinit, busybox and systemd by the names that images
/// give them.
const FIRST: [&str; 4] = ["init", "s6-linux-init", "systemd", "runit-init"];

/// Every note, in the order of the services.
pub(super) fn notes(plan: &Plan, image: &Image<'_>, manifest: &Manifest) -> Vec<String> {
    let mut notes = Vec::new();
    for (named, service) in plan.services.iter().zip(&manifest.services) {
        let author = Author { plan, image: image.config, given: &named.service, service };
        notes.extend(author.capabilities());
        notes.extend(author.first_process());
        notes.extend(author.health());
    }
    notes
}

/// Who gets notes about a service: what the author wrote, and what became of it.
struct Author<'a> {
    plan: &'a Plan,
    image: &'a ImageConfig,
    given: &'a document::Service,
    service: &'a Service,
}

impl Author<'_> {
    /// A root without capabilities is not what an entry point expects that changes owners and becomes another user.
    fn capabilities(&self) -> Option<String> {
        let Service { name, uid, .. } = self.service;
        match &self.given.capabilities {
            None if *uid == 0 && self.given.user.is_none() => Some(format!(
                "service `{name}` runs as root, since the image names no other user, and root has no capabilities \
                 here. If it changes owners of files, reads files of other users or becomes another user, as the entry \
                 points of redis, postgres, mysql and nginx do, add {}; if not, `capabilities: []` or `user: NAME` \
                 there says so",
                self.line("capabilities: docker")
            )),
            Some(list) if *uid != 0 && list.has_docker() => Some(format!(
                "service `{name}` runs as user {uid}: docker gives capabilities to root alone, so `docker` adds none. \
                 Name in `capabilities` those that it needs"
            )),
            _ => None,
        }
    }

    fn first_process(&self) -> Option<String> {
        let program = self.service.argv.first()?;
        let insists = FIRST.contains(&program.rsplit('/').next()?) && self.given.first_process.is_none();
        insists.then(|| {
            format!(
                "service `{}` starts `{program}`: programs of this name end at once unless they are process 1, which \
                 is Cloister's here. If this one does, add {}; if not, `first_process: cloister` there says so",
                self.service.name,
                self.line("first_process: service")
            )
        })
    }

    /// The image's check of its own command is not run.
    fn health(&self) -> Option<String> {
        let own = self.given.command.is_none() || self.plan.services.len() == 1;
        let silent = self.given.live.is_none() && self.service.kind == Kind::Service;
        let command = healthcheck::command(&self.image.healthcheck).filter(|_| own && silent)?;
        let what = format!("the image's HEALTHCHECK is not run (`{command}`).");
        if let Some(check) = healthcheck::translate(&self.image.healthcheck) {
            let ready = format!("ready: {check}");
            return Some(format!(
                "{what} To have the same asked of service `{}`, add {}; `{ready}` there has the start wait for it",
                self.service.name,
                self.line(&format!("live: {check}"))
            ));
        }
        let nearest = match exposed(self.plan, self.image).as_slice() {
            [route] => format!(
                "the nearest is that its port accepts connections: add {}",
                self.line(&format!("live: {{tcp: {}}}", route.target))
            ),
            _ => format!(
                "what there is are ports and HTTP: add {} or `live: {{http: {{port: PORT, path: PATH}}}}`",
                self.line("live: {tcp: PORT}")
            ),
        };
        Some(format!("{what} No command is run as a check here; {nearest}"))
    }

    /// A line, and where it belongs.
    fn line(&self, line: &str) -> String {
        let document = &self.plan.document;
        if document.services.is_some() {
            format!("`{line}` under `{}:` in `services:`", self.service.name)
        } else if document.service.is_some() {
            format!("`{line}` under `service:`")
        } else {
            format!("`service: {{{line}}}`")
        }
    }
}
