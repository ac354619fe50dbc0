//! The second pass: writes directories and inodes, after the contents.
//!
//! Invariant: all sizes and positions are computed before any bytes are written, since node numbers are positions.

use std::io::{Seek, Write};

use super::codec::Compression;
use super::data::Contents;
use super::format::SLOT;
use super::item::{Item, Target};
use super::place::Space;
use super::plan::Plan;
use super::sink::Sink;
use super::{Error, Layout};

/// The fields of the superblock that describe the metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    /// Its first block.
    pub(crate) block: u32,
    /// The root's node number.
    pub(crate) root: u16,
    /// The packed inode's node number, or 0.
    pub(crate) packed: u64,
}

/// Writes directories and inodes after the contents.
pub(crate) fn write<W: Write + Seek>(
    plan: &Plan<'_>,
    contents: &Contents,
    compression: Compression,
    sink: &mut Sink<'_, W>,
) -> Result<Metadata, Error> {
    let nodes = plan.nodes.iter().zip(&contents.bodies).enumerate();
    let mut items = nodes.map(|(id, (node, body))| Item::new(plan, id, node, body)).collect::<Vec<_>>();
    if !contents.packed.is_empty() {
        items.push(Item::packed(contents, items.len(), plan.time));
    }
    let mut space = Space::new();
    for item in &mut items {
        item.position = space.take(item.length, item.whole);
    }
    write_listings(plan, &mut items, sink)?;
    let block = sink.next_block()?;
    write_items(&items, plan.time, compression, sink)?;
    let root = items.first().map_or(0, |root| root.position / SLOT);
    let packed = items.get(plan.nodes.len()).map_or(0, |packed| packed.position / SLOT);
    Ok(Metadata { block, root: u16::try_from(root).map_err(|_| Error::TooLarge)?, packed })
}

/// Writes the directory blocks that do not follow their inodes.
fn write_listings<W: Write + Seek>(
    plan: &Plan<'_>,
    items: &mut [Item<'_>],
    sink: &mut Sink<'_, W>,
) -> Result<(), Error> {
    let targets = items.iter().zip(&plan.nodes).map(|(item, node)| (item.position / SLOT, node.file_type));
    let targets: Vec<Target> = targets.collect();
    for item in items {
        let Some(listing) = &item.listing else { continue };
        let mut blocks = listing.encode(|id| targets.get(*id).copied())?;
        if item.record.layout == Layout::Inline {
            item.inline = blocks.pop().unwrap_or_default();
        }
        item.record.data = sink.next_block()?;
        for block in blocks {
            sink.blocks(&block)?;
        }
    }
    Ok(())
}

/// Writes inodes in the order of their positions.
fn write_items<W: Write + Seek>(
    items: &[Item<'_>],
    time: i64,
    compression: Compression,
    sink: &mut Sink<'_, W>,
) -> Result<(), Error> {
    let start = sink.length();
    let mut order: Vec<&Item<'_>> = items.iter().collect();
    order.sort_by_key(|item| item.position);
    for item in order {
        sink.zeros_until(start.saturating_add(item.position))?;
        item.write(time, compression, sink)?;
    }
    sink.fill()
}
