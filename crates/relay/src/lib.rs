//! The one relay.
