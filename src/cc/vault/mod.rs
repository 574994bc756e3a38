//! The vault: files, manifests, recovery.

pub mod manifest;
