//! The supervisor: policy inside the enclave.

pub mod ingress;
