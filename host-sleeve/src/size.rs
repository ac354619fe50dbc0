//! Whether an enclave image can be loaded by a machine.
//!
//! Its law: what no machine can load is refused by the build, with the number of each; what one machine can load and
//! another cannot is warned of by the build and refused by a launch on the other, before QEMU is started.

use cloister_image::artifact::{Artifact, Part};
use cloister_image::eif::Kind;

use crate::app::{App, Source};
use crate::backends::{self, Backend, Room, qemu};
use crate::cli::values::show_size;
use crate::error::{Error, Result};
use crate::memory;

/// What makes an image smaller.
const SMALLER: &str = "make the application smaller: all of its root is in the ramdisk, compressed; data that is large or \
                       changes can be fetched by a service";

/// Refuses a launch of `app` on a machine that cannot load it.
pub(crate) fn check_launch(app: &App, backend: &dyn Backend, machine: Option<qemu::Machine>) -> Result<()> {
    let rooms = backend.rooms(memory::of_kernel(&app.source)?);
    let chosen = rooms.iter().find(|room| machine.is_none() || room.machine == machine);
    fits(ramdisks(&app.source), chosen, &rooms)
}

fn fits(ramdisks: u64, chosen: Option<&Room>, rooms: &[Room]) -> Result<()> {
    let Some(chosen) = chosen.filter(|room| room.bytes < ramdisks) else { return Ok(()) };
    let error =
        Error::operator(format!("the image is too large for {}: {}", chosen.name, needs(ramdisks, chosen)));
    Err(match rooms.iter().find(|room| room.bytes >= ramdisks) {
        Some(other) => {
            error.hint(format!("take {}, which loads up to {}", other.name, show_size(other.bytes)))
        }
        None => error.hint(SMALLER),
    })
}

/// Refuses an image that no machine here can load, unless it is meant for hardware too. Answers what to warn of.
pub(crate) fn check_build(artifact: Artifact, for_hardware: bool) -> Result<Vec<String>> {
    let source = Source::Artifact(artifact);
    let kernel = memory::of_kernel(&source)?;
    let rooms: Vec<Room> = backends::all().iter().flat_map(|backend| backend.rooms(kernel)).collect();
    judge(ramdisks(&source), &rooms, for_hardware)
}

fn judge(ramdisks: u64, rooms: &[Room], for_hardware: bool) -> Result<Vec<String>> {
    let small: Vec<&Room> = rooms.iter().filter(|room| room.bytes < ramdisks).collect();
    if !small.is_empty() && small.len() == rooms.len() && !for_hardware {
        let list: Vec<String> = small.iter().map(|room| needs(ramdisks, room)).collect();
        return Err(Error::author("the enclave image is too large for every machine")
            .because(std::io::Error::other(list.join("; ")))
            .hint(SMALLER));
    }
    let warning =
        |room: &&Room| format!("warning: {} cannot run this image: {}", room.name, needs(ramdisks, room));
    Ok(small.iter().map(warning).collect())
}

fn needs(ramdisks: u64, room: &Room) -> String {
    format!("its ramdisks have {}, and {} loads {}", show_size(ramdisks), room.name, show_size(room.bytes))
}

/// How many bytes of ramdisk are loaded.
fn ramdisks(source: &Source) -> u64 {
    match source {
        Source::Artifact(artifact) => {
            artifact.size(Part::OsRamdisk).saturating_add(artifact.size(Part::AppRamdisk))
        }
        Source::Eif(file) => {
            let sections = file.explanation.sections.iter().filter(|section| section.kind == Kind::Ramdisk);
            sections.map(|section| section.size).fold(0, u64::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn rooms() -> Vec<Room> {
        // A kernel that needs 48 MiB, which is what ours needs.
        backends::all().iter().flat_map(|backend| backend.rooms(48 << 20)).collect()
    }

    #[test]
    fn an_image_that_one_machine_loads_is_warned_of_at_the_build_and_refused_on_the_others() {
        let rooms = rooms();
        let warnings = judge(5 * GIB / 2, &rooms, false).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings.concat().contains("--machine q35 loads 1.9 GiB"), "{warnings:?}");
        let q35 = rooms.iter().find(|room| room.name.contains("q35"));
        let error = fits(5 * GIB / 2, q35, &rooms).unwrap_err();
        assert!(error.to_string().contains("its ramdisks have 2.5 GiB"), "{error}");
        assert!(error.told().hint.as_deref().unwrap().contains("take --machine microvm"), "{error:?}");
        assert!(fits(5 * GIB / 2, rooms.first(), &rooms).is_ok());
        assert!(judge(GIB, &rooms, false).unwrap().is_empty());
    }

    #[test]
    fn an_image_that_no_machine_loads_is_refused_with_the_number_of_each() {
        let rooms = rooms();
        let error = judge(7 * GIB / 2, &rooms, false).unwrap_err();
        let reasons = error.reasons().concat();
        for number in
            ["ramdisks have 3.5 GiB", "--machine microvm loads 2.9 GiB", "--machine q35 loads 1.9 GiB"]
        {
            assert!(reasons.contains(number), "{reasons}");
        }
        assert_eq!(judge(7 * GIB / 2, &rooms, true).unwrap().len(), 3, "hardware may load it");
        assert!(fits(7 * GIB / 2, rooms.first(), &rooms).is_err());
    }
}
