//! What other commands ask of the enclaves of this user.
//!
//! Its law: it asks and reports what it hears; nothing here decides about an enclave.

pub(crate) mod usage;
