//! The supervisor's entry.
fn main() {}
