//! `inspect`: details of an enclave or an enclave image.

use std::collections::BTreeMap;
use std::path::Path;

use cloister_image::artifact::BuildRecord;
use cloister_image::digest::Digest;
use cloister_manifest::{Manifest, Platform};
use cloister_wire::control::{IngressCounters, Reply, Request};
use serde::Serialize;

use crate::app::{App, Source};
use crate::backends::{leftovers, list, platform};
use crate::cli::Inspect;
use crate::client::usage;
use crate::error::{Error, Result};
use crate::output::{self, Table};
use crate::state::record::Seen;
use crate::state::{Record, Root};
use crate::values::{show_duration, show_size};

use super::{DONE, eif, service};
use crate::values::word;

/// The result of `inspect --json` for a running or ended enclave.
#[derive(Serialize)]
struct Enclave<'a> {
    alive: bool,
    summary: String,
    /// The running processes on this host, by part.
    processes: BTreeMap<&'a str, u32>,
    #[serde(flatten)]
    record: &'a Record,
}

/// The result of `inspect --json` for an enclave image.
#[derive(Serialize)]
struct Image<'a> {
    path: &'a Path,
    digest: Digest,
    parts: BTreeMap<&'static str, File>,
    cmdline: &'a str,
    manifest: Manifest,
    build: BuildRecord,
}

#[derive(Serialize)]
struct File {
    digest: Digest,
    size: u64,
}

/// Shows details of an enclave or an enclave image.
pub(crate) fn inspect(args: &Inspect, json: bool) -> Result<u8> {
    if let Some(service) = &args.service {
        return confinement(&args.target, service, json);
    }
    let path = Path::new(&args.target);
    if !args.target.contains(['/', '.']) {
        return enclave(&args.target, json);
    }
    match Source::open(path)? {
        Source::Artifact(_) => image(path, json),
        Source::Eif(file) => eif::inspect(path, &file.explanation, json),
    }
}

fn enclave(name: &str, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let mut seen = root.find(name)?.must_see()?;
    // A connection is not a change of state, so the status does not include it: the current counters are requested.
    let now = usage::query(&root, &seen).map(|now| now.ingress);
    update_counters(&mut seen, now);
    let record = &seen.record;
    let processes = record.machine.iter().flat_map(|machine| &machine.processes);
    let sleeve = record.sleeve.iter().map(|process| ("sleeve", *process));
    let processes = processes.map(|(part, process)| (part.as_str(), *process)).chain(sleeve);
    let processes =
        processes.filter(|(_, process)| record.runs(*process)).map(|(part, p)| (part, p.pid)).collect();
    if json {
        let all = Enclave { alive: seen.alive, summary: leftovers::summary(&seen), processes, record };
        return output::json(&all).map(|()| DONE);
    }
    output::data(&text(&seen, &processes))?;
    Ok(DONE)
}

/// Replaces the ingress counters of the last status by the current ones, if there are any. An ended enclave has no connections.
const fn update_counters(seen: &mut Seen, now: Option<IngressCounters>) {
    let Some(status) = &mut seen.record.status else { return };
    match now {
        Some(now) => status.ingress = now,
        None if !seen.alive => status.ingress.open = 0,
        None => {}
    }
}

fn text(seen: &Seen, processes: &BTreeMap<&str, u32>) -> String {
    let record = &seen.record;
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact("name", record.name.clone());
    fact("state", leftovers::summary(seen));
    fact("verified", record.verified.word().to_owned());
    fact("image", format!("{} {}", record.image.path.display(), record.image.digest));
    fact("backend", format!("{}, {} CPUs, {}", record.backend, record.cpus, show_size(record.memory)));
    match list::platform(&record.backend) {
        Some(Platform::Virtual) => fact("platform", "VIRTUAL: no hardware protects this enclave".to_owned()),
        Some(platform) => fact("platform", platform.name().to_owned()),
        None => {}
    }
    if let Some(machine) = &record.machine {
        let vsock = machine.cid.zip(machine.vsock.as_ref());
        let vsock = vsock.map_or_else(String::new, |(cid, by)| format!(", vsock {cid} by {by}"));
        fact("machine", format!("{}{vsock}", platform::machine(record)));
        if let Some(why) = &machine.why {
            fact("", why.clone());
        }
    }
    for port in &record.publish {
        fact("port", format!("{} → ingress port {}", port.listen, port.ingress));
    }
    if let Some(ingress) = record.status.as_ref().map(|status| status.ingress) {
        fact("ingress", counters(&ingress));
    }
    if let Some(time) = record.status.as_ref().and_then(|status| status.time) {
        fact("time", time.to_string());
    }
    for (part, pid) in processes {
        fact("process", format!("{part} {pid}"));
    }
    let mut text = facts.render();
    if let Some(status) = &record.status {
        text.push_str(&boot(status));
        text.push_str(&services(status));
        text.push_str(&registers(record, status));
    }
    text
}

fn counters(ingress: &IngressCounters) -> String {
    let IngressCounters { accepted, open, refused, bytes_in, bytes_out } = *ingress;
    let (bytes_in, bytes_out) = (show_size(bytes_in), show_size(bytes_out));
    format!("{accepted} connections, {open} open, {refused} refused; {bytes_in} in, {bytes_out} out")
}

/// The registers as the enclave reported them, next to the predictions.
fn registers(record: &Record, status: &cloister_wire::control::Status) -> String {
    if status.registers.is_empty() {
        return String::new();
    }
    let predicted = record.machine.as_ref().and_then(|machine| machine.pcrs);
    let mut table = Table::new(&["REGISTER", "LOCKED", "VALUE", ""]);
    for register in &status.registers {
        let expected = predicted.and_then(|pcrs| pcrs.get(register.index)).map(|pcr| pcr.to_string());
        let verdict = match expected {
            Some(expected) if expected == register.value => "as predicted".to_owned(),
            Some(expected) => format!("NOT AS PREDICTED: {expected}"),
            None => String::new(),
        };
        let locked = if register.locked { "yes" } else { "no" };
        table.row([format!("PCR{}", register.index), locked.to_owned(), register.value.clone(), verdict]);
    }
    format!("\n\n{}", table.render())
}

fn boot(status: &cloister_wire::control::Status) -> String {
    let mut table = Table::new(&["STAGE", "AT", "TOOK"]);
    for stage in &status.boot {
        let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
        table.row([stage.name.clone(), ms(stage.at_us), ms(stage.took_us)]);
    }
    format!("\n\n{}", table.render())
}

fn services(status: &cloister_wire::control::Status) -> String {
    let mut table = Table::new(&["SERVICE", "PHASE", "PID", "RESTARTS", "SINCE BOOT", "LAST EXIT"]);
    for service in status.services.iter().chain(&status.servants) {
        table.row([
            service.name.clone(),
            word(&service.phase),
            service.pid.map_or_else(String::new, |pid| pid.to_string()),
            service.restarts.to_string(),
            show_duration(std::time::Duration::from_millis(service.since_ms)),
            service.last_exit.as_ref().map_or_else(String::new, word),
        ]);
    }
    format!("\n\n{}", table.render())
}

fn confinement(name: &str, service: &str, json: bool) -> Result<u8> {
    let directory = Root::open()?.find(name)?;
    let request = Request::Inspect { service: service.to_owned() };
    match service::send(&directory, request)? {
        Reply::Inspect(found) if json => output::json(&found).map(|()| DONE),
        Reply::Inspect(found) => {
            let value = serde_json::to_value(&found).unwrap_or_default();
            let mut table = Table::default();
            for (field, value) in value.as_object().into_iter().flatten() {
                table.row([field.clone(), value.to_string()]);
            }
            output::data(&table.render())?;
            Ok(DONE)
        }
        Reply::Refused { why } => Err(Error::enclave(format!("{name} refused the request"))
            .because(std::io::Error::other(output::printable(&why)))),
        _ => Err(Error::enclave(format!("{name} sent an unexpected reply"))),
    }
}

fn image(path: &Path, json: bool) -> Result<u8> {
    let app = App::open(path)?;
    let artifact = app.source.artifact()?;
    let unusable = |error| Error::operator(format!("{} cannot be used", path.display())).because(error);
    artifact.verify().map_err(unusable)?;
    let build = artifact.build_record().map_err(unusable)?;
    let parts = artifact.parts().map(|(part, digest, size)| (part.title(), File { digest, size })).collect();
    let (digest, cmdline) = (artifact.digest(), &app.cmdline);
    let manifest = without_sealed(&app.manifest);
    let image = Image { path: app.path(), digest, parts, cmdline, manifest, build };
    if json {
        output::json(&image)?;
    } else {
        output::data(&image_text(&image))?;
    }
    Ok(DONE)
}

/// A manifest that can be shown and shared: each sealed text is replaced by its length.
fn without_sealed(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for text in manifest.services.iter_mut().flat_map(|service| service.sealed.values_mut()) {
        *text = format!("({} bytes)", text.len());
    }
    manifest
}

fn image_text(image: &Image<'_>) -> String {
    let mut table = Table::default();
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("image", image.path.display().to_string());
    fact("digest", image.digest.to_string());
    fact("name", image.manifest.name.clone());
    fact("platforms", Platform::list(&image.manifest.platforms));
    for (title, file) in &image.parts {
        fact(title, format!("{} {}", file.digest, show_size(file.size)));
    }
    fact("command line", image.cmdline.to_owned());
    fact("built by", format!("{} {}", image.build.tool.name, image.build.tool.version));
    for service in &image.manifest.services {
        fact("service", format!("{}: {}", service.name, service.argv.join(" ")));
    }
    for ingress in &image.manifest.ingress {
        fact("ingress", format!("port {} → {} port {}", ingress.port, ingress.service, ingress.target));
    }
    if let Some(port) = image.manifest.attestation.port {
        fact("ingress", format!("port {port} → evidence over HTTPS"));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::launched;

    #[test]
    fn an_ended_enclave_has_no_open_connections() {
        let counters = IngressCounters { accepted: 3, open: 2, ..IngressCounters::default() };
        let open = |alive, now| {
            let status = serde_json::from_value(serde_json::json!({
                "seq": 2, "state": "ready", "platform": "virtual", "uptime_ms": 10, "supervisor_restarts": 0, "boot": [],
                "services": [], "ingress": counters, "registers": [],
            }));
            let mut seen = Seen { record: Record { status: status.unwrap(), ..launched("web") }, alive };
            update_counters(&mut seen, now);
            seen.record.status.unwrap().ingress.open
        };
        assert_eq!((open(true, None), open(false, None)), (2, 0));
        assert_eq!(open(true, Some(IngressCounters { open: 7, ..counters })), 7);
    }
}
