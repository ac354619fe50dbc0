//! The supervisor: policy inside the enclave.
//!
//! Invariant: everything that must survive it is stored by init, so that it may crash at any instruction and its
//! successor continues. It neither starts nor reaps processes: it requests that from [init](cloister_wire::hold).
//!
//! | directory | job |
//! |---|---|
//! | [`core`] | one event at a time: decide, store, perform, publish |
//! | [`launcher`] | the process graph: order, readiness, restarts, shutdown; pure |
//! | [`confine`] | from the manifest to what init applies: capabilities, seccomp filter |
//! | [`evidence`] | what provides evidence, for the attestor |
//! | [`probe`], [`notify`] | readiness and liveness of services |
//! | [`owners`] | connections to a port only if the right service listens on it |
//! | `servant` | Cloister's programs that run beside the services: the gateway |
//! | [`logs`] | the services' output, bounded and preserved across crashes of the supervisor |
//! | [`reserve`] | reserves the ports of the services |
//! | [`memory`] | the memory reserved for the supervisor |
//! | [`status`] | the enclave's state, and requests |
//! | [`permission`] | which services may send requests about other services |
//! | [`timekeeper`] | corrects the date by a clock that the enclave trusts |
//! | [`hold`], [`stash`] | the channel to init, and the state that init stores for the supervisor |

pub mod clock;
pub mod confine;
pub mod core;
pub mod evidence;
pub mod hold;
pub mod launcher;
pub mod logs;
pub mod memory;
pub mod notify;
pub mod owners;
pub mod permission;
pub mod probe;
pub mod reserve;
mod servant;
pub mod stash;
pub mod status;
pub mod timekeeper;
pub mod world;
