//! The supervisor: policy inside the enclave.
//!
//! Its law: everything that must outlive it lies with init, so that it may die at any instruction and its successor goes
//! on. It starts no process and reaps none: it asks [init](cloister_wire::hold) to.
//!
//! | folder | job |
//! |---|---|
//! | [`launcher`] | the process graph: order, readiness, restarts, the end; pure |

mod channel;
pub mod clock;
pub mod hold;
pub mod launcher;
pub mod logs;
pub mod stash;
pub mod world;
