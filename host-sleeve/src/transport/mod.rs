//! How a port of an enclave is reached.
//!
//! Its law: [`way`] says what every transport promises; each of the others keeps it.
//!
//! | module | the host reaches the enclave |
//! |---|---|
//! | `hybrid` | through a device's Unix socket and its `CONNECT` line |
//! | `kernel` | through the kernel, by CID |

mod hybrid;
mod kernel;
mod way;

pub(crate) use hybrid::Hybrid;
pub(crate) use kernel::Kernel;
pub(crate) use way::{Pending, Transport, may_answer_later};
