//! Reads inodes and their attributes.
//!
//! Invariant: a returned inode has a supported layout and type; its size has not been checked.

use std::collections::BTreeMap;

use super::bytes::Fields;
use super::{Error, Image};
use crate::erofs::format::{FileType, Layout, SLOT};
use crate::erofs::xattr;

/// A decoded inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inode {
    pub(crate) layout: Layout,
    pub(crate) file_type: FileType,
    pub(crate) permissions: u16,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// The first block of plain content.
    pub(crate) data: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    /// The position and the length of the attributes in bytes.
    pub(crate) attributes: u64,
    pub(crate) attributes_length: usize,
    /// The position after the attributes.
    pub(crate) end: u64,
}

/// Reads the inode with this number.
pub(crate) fn read(image: &Image, node: u64) -> Result<Inode, Error> {
    let position = node.checked_mul(SLOT).and_then(|offset| offset.checked_add(image.metadata));
    let position = position.ok_or(Error::Damaged("a node number is too large"))?;
    let mut bytes = [0; 32];
    image.read(&mut bytes, position)?;
    if bytes.first().is_some_and(|format| format & 1 == 0) {
        return decode_compact(&bytes, position, image.time);
    }
    let mut bytes = [0; 64];
    image.read(&mut bytes, position)?;
    decode_extended(&bytes, position)
}

fn decode_compact(bytes: &[u8], position: u64, time: i64) -> Result<Inode, Error> {
    let mut fields = Fields::new(bytes);
    let (format, count, mode) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (links, size) = (fields.u16()?, fields.u32()?);
    fields.skip(4)?;
    let data = fields.u32()?;
    fields.skip(4)?;
    let (uid, gid) = (fields.u16()?, fields.u16()?);
    let inode = Inode {
        layout: layout(format)?,
        file_type: file_type(mode)?,
        permissions: mode & 0o7777,
        links: links.into(),
        size: size.into(),
        data,
        uid: uid.into(),
        gid: gid.into(),
        mtime: time,
        attributes: position + 32,
        attributes_length: 0,
        end: 0,
    };
    Ok(inode.with_attributes(count))
}

fn decode_extended(bytes: &[u8], position: u64) -> Result<Inode, Error> {
    let mut fields = Fields::new(bytes);
    let (format, count, mode) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.skip(2)?;
    let (size, data) = (fields.u64()?, fields.u32()?);
    fields.skip(4)?;
    let (uid, gid, mtime) = (fields.u32()?, fields.u32()?, fields.i64()?);
    fields.skip(4)?;
    let links = fields.u32()?;
    let inode = Inode {
        layout: layout(format)?,
        file_type: file_type(mode)?,
        permissions: mode & 0o7777,
        links,
        size,
        data,
        uid,
        gid,
        mtime,
        attributes: position + 64,
        attributes_length: 0,
        end: 0,
    };
    Ok(inode.with_attributes(count))
}

impl Inode {
    fn with_attributes(self, count: u16) -> Self {
        let words = usize::from(count).checked_sub(1);
        let attributes_length = words.map_or(0, |words| xattr::HEADER + 4 * words);
        let end = self.attributes + u64::try_from(attributes_length).unwrap_or_default();
        Self { attributes_length, end, ..self }
    }

    /// The extended attributes by full name.
    pub(crate) fn xattrs(&self, image: &Image) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
        let mut bytes = vec![0; self.attributes_length];
        image.read(&mut bytes, self.attributes)?;
        let mut found = BTreeMap::new();
        if bytes.is_empty() {
            return Ok(found);
        }
        let mut fields = Fields::new(&bytes);
        fields.skip(4)?;
        if fields.u8()? != 0 {
            return Err(Error::Foreign("shared attributes"));
        }
        fields.skip(7)?;
        while !fields.is_empty() {
            let (name, value) = attribute(&mut fields)?;
            if found.insert(name, value).is_some() {
                return Err(Error::Damaged("an attribute occurs twice"));
            }
        }
        Ok(found)
    }
}

/// Reads one attribute and its padding.
fn attribute(fields: &mut Fields<'_>) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let (name_length, family) = (usize::from(fields.u8()?), fields.u8()?);
    let value_length = usize::from(fields.u16()?);
    let name = fields.bytes(name_length)?;
    let value = fields.bytes(value_length)?;
    fields.skip((name_length + value_length).next_multiple_of(4) - name_length - value_length)?;
    let name = xattr::full_name(family, name).ok_or(Error::Foreign("other attribute families"))?;
    Ok((name, value.to_vec()))
}

fn layout(format: u16) -> Result<Layout, Error> {
    Layout::from_code(format >> 1).ok_or(Error::Foreign("other inode layouts"))
}

fn file_type(mode: u16) -> Result<FileType, Error> {
    FileType::from_mode(mode).ok_or(Error::Foreign("device nodes or sockets"))
}
