//! Writes an artifact from an application that has been read.
//!
//! Invariant: every part is a function of the application, the manifest, the release and the options.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use super::stop::{self, Cancellable};
use super::{Application, BuildError, Pack, places};
use crate::artifact::{ArtifactError, BuildRecord, Finished, OsRecord, Part, RootForm, Writer};
use crate::digest::Digest;
use crate::erofs::{self, Compression};
use crate::measure;
use crate::ramdisk::{self, AppRoot, OsError, OsRelease, Written};
use crate::sbom;
use crate::tree::Tree;

/// Bytes of the file system written at a time.
const OUT_BUFFER: usize = 256 * 1024;

/// Compression of the file system: the one with the smallest result, since the whole image is sent to the enclave and
/// stays in its memory.
const COMPRESSION: Compression = Compression::Zstd;

/// Writes the artifact under a temporary name. The caller can inspect it, and then publishes it under its final name.
pub fn pack(application: &Application, pack: &Pack<'_>) -> Result<Finished, BuildError> {
    let os_error = |error| BuildError::Os { path: pack.os.to_owned(), error };
    let (release, os_record) = ramdisk::read_os(pack.os, application.architecture).map_err(os_error)?;
    let manifest = pack.manifest.to_json().map_err(BuildError::Manifest)?;
    let mut writer = Writer::new(pack.output)?;
    write_os(&release, pack.os, &mut writer)?;
    writer.bytes(Part::OsRelease, &os_record)?;
    writer.bytes(Part::Manifest, &manifest)?;
    let tree = places::with_places(&application.tree, pack.manifest);
    write_app(&tree, pack, &manifest, &mut writer)?;
    stop::check(pack.stop)?;
    write_sbom(&tree, pack, &os_record, &mut writer)?;
    let os = OsRecord { version: release.version.clone(), record: Digest::of(&os_record) };
    let record = BuildRecord {
        version: crate::artifact::RECORD_VERSION,
        tool: pack.tool.clone(),
        application: application.record.clone(),
        os,
        manifest_source: pack.manifest_source,
        root: pack.root,
        clamp_mtime: application.clamp_mtime,
        outputs: writer.outputs(),
    };
    writer.bytes(Part::BuildRecord, &json(&record, pack.output, Part::BuildRecord)?)?;
    // Written after the record of what was built: a signature is not part of that, and the measurements derive from it.
    write_measurements(&release, pack, &mut writer)?;
    stop::check(pack.stop)?;
    Ok(writer.seal()?)
}

fn write_measurements(release: &OsRelease, pack: &Pack<'_>, writer: &mut Writer) -> Result<(), BuildError> {
    let mut measurements = measure::of_release(release);
    if let Some(command_line) = &release.cmdline_nitro {
        let kernel = writer.content(Part::Kernel)?;
        let ramdisks = [writer.content(Part::OsRamdisk)?, writer.content(Part::AppRamdisk)?];
        let certificate = pack.signer.map(|signer| signer.certificate().der());
        let nitro = measure::nitro(&kernel, command_line, &ramdisks, certificate)
            .map_err(|source| BuildError::Scratch { path: writer.scratch().to_owned(), source })?;
        if let Some(signer) = pack.signer {
            writer.bytes(Part::EifSignature, &signer.sign(&nitro.pcrs.pcr0).map_err(BuildError::Sign)?)?;
        }
        measurements.nitro = Some(nitro);
    } else if pack.signer.is_some() {
        return Err(BuildError::NoNitro);
    }
    writer.bytes(Part::Measurements, &json(&measurements, pack.output, Part::Measurements)?)?;
    Ok(())
}

fn write_os(release: &OsRelease, os: &Path, writer: &mut Writer) -> Result<(), BuildError> {
    let (kernel, ramdisk) = (ramdisk::kernel_path(os), ramdisk::ramdisk_path(os));
    let os_error = |error| BuildError::Os { path: os.to_owned(), error };
    for (part, path, record) in
        [(Part::Kernel, kernel, release.kernel), (Part::OsRamdisk, ramdisk, release.ramdisk)]
    {
        let unread = |source| os_error(OsError::Host { verb: "read", path: path.clone(), source });
        if writer.file(part, &path, unread)?.digest != record.sha256 {
            return Err(os_error(OsError::Changed(path)));
        }
        if part == Part::OsRamdisk {
            writer.unpacks_to(part, ramdisk::unpacked_size(&path).map_err(os_error)?);
        }
    }
    writer.bytes(Part::CommandLine, release.cmdline.as_bytes())?;
    Ok(())
}

fn write_app(tree: &Tree, pack: &Pack<'_>, manifest: &[u8], writer: &mut Writer) -> Result<(), BuildError> {
    let file_system = match pack.root {
        RootForm::Plain => None,
        RootForm::Erofs => Some(write_erofs(tree, pack, writer.scratch())?),
    };
    let mut unpacked = 0;
    writer.stream(Part::AppRamdisk, |out| {
        let root = match file_system {
            None => AppRoot::Plain(tree),
            Some((image, size)) => AppRoot::Erofs { image, size },
        };
        let written: Written = ramdisk::write_app(manifest, root, Cancellable::new(out, pack.stop))
            .map_err(BuildError::Ramdisk)?;
        unpacked = written.unpacked;
        Ok::<(), BuildError>(())
    })?;
    writer.unpacks_to(Part::AppRamdisk, unpacked);
    Ok(())
}

fn write_sbom(tree: &Tree, pack: &Pack<'_>, os_record: &[u8], writer: &mut Writer) -> Result<(), BuildError> {
    let read = |source| BuildError::Scratch { path: writer.scratch().to_owned(), source };
    // The record has been parsed before; fields missing from it are missing from the SBOM.
    let os_record = serde_json::from_slice(os_record).unwrap_or_default();
    let bom = sbom::generate(&pack.manifest.name, tree, &os_record).map_err(read)?;
    writer.bytes(Part::BillOfMaterials, &json(&bom, pack.output, Part::BillOfMaterials)?)?;
    Ok(())
}

/// The application's root as a file system, in an anonymous file, and its length.
fn write_erofs(tree: &Tree, pack: &Pack<'_>, scratch: &Path) -> Result<(File, u64), BuildError> {
    let in_scratch = |source| BuildError::Scratch { path: scratch.to_owned(), source };
    let file = tempfile::tempfile_in(scratch).map_err(in_scratch)?;
    let mut out = io::BufWriter::with_capacity(OUT_BUFFER, Cancellable::new(file, pack.stop));
    let options = erofs::Options { compression: COMPRESSION, pack_small: true, workers: pack.workers };
    let summary = erofs::write(tree, &options, &mut out).map_err(BuildError::Erofs)?;
    let mut file = out.into_inner().map_err(|error| in_scratch(error.into_error()))?.into_inner();
    file.rewind().map_err(in_scratch)?;
    Ok((file, summary.length))
}

fn json(document: &impl serde::Serialize, path: &Path, part: Part) -> Result<Vec<u8>, BuildError> {
    let error = |source| ArtifactError::Document { path: path.to_owned(), title: part.title(), source };
    let mut bytes = serde_json::to_vec_pretty(document).map_err(error)?;
    bytes.push(b'\n');
    Ok(bytes)
}
