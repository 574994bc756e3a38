//! The vault of `lea decode`, and the streams that go into it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::cc::chunk_store::{ChunkOrigin, ChunkStore};
use crate::cc::vault::manifest::Source;
use crate::cc::vault::{Access, Vault, VaultConfig, VaultThreads};
use crate::counters::Counters;
use crate::limits::Machine;

/// Streams open at once: each has some 3 KiB, so all stay below 256 MiB. One that is opened again costs two manifests
/// and a sync.
const STREAMS_OPEN_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not 0");

/// Descriptors for their files: writes are large, so more would not be faster.
const DESCRIPTORS_MAX: usize = 1024;

/// Bytes gathered for all streams together.
const STAGED_BYTES_MAX: usize = 64 << 20;

/// Opens the folder and starts the vault.
pub fn open(dir: &Path) -> Result<(ChunkStore, VaultThreads)> {
    let config = VaultConfig {
        dir: dir.to_owned(),
        access: Access { file_mode: 0o600, group: None },
        hash: true,
        pending_bytes_max: 64 << 20,
        descriptors: Machine::prepare().descriptors_shared().min(DESCRIPTORS_MAX),
        free_bytes_min: 16 << 20,
        sync_interval: Duration::from_secs(1),
    };
    let (vault, threads) = Vault::spawn(&config, Arc::new(Counters::default()))?;
    let origin = ChunkOrigin {
        source: Source::Kafka,
        peer: "dump".to_owned(),
        stop: None,
        streams_max: STREAMS_OPEN_MAX,
        staged_bytes_max: STAGED_BYTES_MAX,
    };
    Ok((ChunkStore::new(vault, origin), threads))
}
