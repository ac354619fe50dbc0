//! The user that a service runs as, and the capabilities that it keeps.
//!
//! Invariant: the bounding set is reduced first and never grows; a user that is not root has exactly the listed capabilities,
//! through the ambient set (capabilities(7)).

use cloister_wire::hold::Spawn;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::At;
use crate::hold::Failure;

/// One more than the highest capability that this program knows (`CAP_LAST_CAP`, `linux/capability.h`); those that the kernel
/// does not know are skipped.
const CAPABILITIES: u32 = 41;

/// Reduces the capabilities and becomes the user.
pub(super) fn become_user(spec: &Spawn) -> Result<(), Failure> {
    reduce_bounding_set(spec.capabilities)?;
    // Without this, the change of user would drop every capability; right after it, only the listed ones are kept.
    rustix::thread::set_keep_capabilities(true).at("capabilities", "keeping them")?;
    let groups: Vec<Gid> = spec.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).at("user", format_args!("groups {:?}", spec.groups))?;
    let gid = Gid::from_raw(spec.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).at("user", format_args!("gid {}", spec.gid))?;
    let uid = Uid::from_raw(spec.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).at("user", format_args!("uid {}", spec.uid))?;
    keep_only(spec)
}

fn reduce_bounding_set(keep: u64) -> Result<(), Failure> {
    for number in (0..CAPABILITIES).filter(|number| keep >> number & 1 == 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).at("capabilities", format_args!("dropping number {number}")),
        }
    }
    Ok(())
}

fn keep_only(spec: &Spawn) -> Result<(), Failure> {
    let kept = CapabilitySet::from_bits_retain(spec.capabilities & ((1 << CAPABILITIES) - 1));
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    rustix::thread::set_capabilities(None, sets)
        .at("capabilities", format_args!("{:#x}", spec.capabilities))?;
    // Programs of root get the capabilities of the bounding set without this.
    if spec.uid == 0 {
        return Ok(());
    }
    for number in (0..CAPABILITIES).filter(|number| spec.capabilities >> number & 1 == 1) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .at("capabilities", format_args!("keeping number {number}"))?;
    }
    Ok(())
}
