//! The supervisor: policy inside the enclave.
//!
//! Its law: everything that must outlive it lies with init, so that it may die at any instruction and its successor goes
//! on. It starts no process and reaps none: it asks [init](cloister_wire::hold) to.
//!
//! | folder | job |
//! |---|---|
//! | [`core`] | one event at a time: decide, keep, perform, show |
//! | [`launcher`] | the process graph: order, readiness, restarts, the end; pure |
//! | [`confine`] | from the manifest to what init applies: capabilities, seccomp filter |
//! | [`probe`], [`notify`] | is a service ready, is it alive |
//! | [`owners`] | connections to a service's own port, and to nobody else's |
//! | `servant` | programs of ours that run beside the services: the gateway |
//! | [`logs`] | what the services said, bounded and never lost by a crash of ours |
//! | [`reserve`] | the ports of the services, which are kept for them |
//! | [`status`] | the state, and what may be asked |
//! | [`permission`] | who inside may ask about other services |
//! | [`hold`], [`stash`] | the conversation with init, and what it keeps for us |

pub mod clock;
pub mod confine;
pub mod core;
pub mod hold;
pub mod launcher;
pub mod logs;
pub mod notify;
pub mod owners;
pub mod permission;
pub mod probe;
pub mod reserve;
pub mod room;
mod servant;
pub mod stash;
pub mod status;
pub mod world;
