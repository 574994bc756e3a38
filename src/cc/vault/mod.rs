//! The vault: files, manifests, recovery.

pub mod manifest;
pub mod scan;
