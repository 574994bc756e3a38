//! Templates, aliases and settings of clients. They are in one small file, which is replaced atomically. Shared by the
//! threads of the HTTP connections.
//!
//! Invariant: a change is durable before it is answered, and before other threads see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ApiError;
use crate::{Error, Result};

/// The name of the file in the directory of the store.
const FILE: &str = "http-metadata.json";

/// Limit on the size of the file. Shippers have templates of about 100 KiB.
const BYTES_MAX: usize = 4 << 20;

/// All that clients have configured. Values are in the form in which they are returned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    /// Templates of `_template` by name.
    pub(super) templates: BTreeMap<String, Value>,
    /// Templates of `_index_template` by name.
    pub(super) index_templates: BTreeMap<String, Value>,
    pub(super) component_templates: BTreeMap<String, Value>,
    /// The aliases of each index, with their options.
    pub(super) aliases: BTreeMap<String, BTreeMap<String, Value>>,
    /// The settings of each index under their full names, such as `index.refresh_interval`.
    pub(super) settings: BTreeMap<String, BTreeMap<String, String>>,
}

/// The metadata and its file.
#[derive(Debug, Default)]
pub(super) struct MetadataStore {
    current: RwLock<Arc<Metadata>>,
    /// Held while a change is written.
    writing: Mutex<()>,
    /// `None`: the metadata ends with the process.
    path: Option<PathBuf>,
}

impl MetadataStore {
    /// Reads the metadata of a directory. A damaged file is an error: without its templates, new indices would differ.
    pub(super) fn open(dir: &Path) -> Result<MetadataStore> {
        let path = dir.join(FILE);
        let metadata = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Store {
                act: "read",
                path: path.clone(),
                cause: error.to_string(),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Metadata::default(),
            Err(error) => return Err(Error::path("read", &path)(error)),
        };
        Ok(MetadataStore {
            current: RwLock::new(Arc::new(metadata)),
            path: Some(path),
            ..MetadataStore::default()
        })
    }

    pub(super) fn read(&self) -> Arc<Metadata> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies a change and makes it durable. An error leaves everything as it was.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Metadata) -> std::result::Result<T, ApiError>,
    ) -> std::result::Result<T, ApiError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.read();
        let mut next = Metadata::clone(&before);
        let done = change(&mut next)?;
        if next != *before {
            self.write(&next)?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        Ok(done)
    }

    fn write(&self, metadata: &Metadata) -> std::result::Result<(), ApiError> {
        // Serializing fails only for keys that are not strings.
        let bytes = serde_json::to_vec(metadata).unwrap_or_default();
        if bytes.len() > BYTES_MAX {
            let reason = format!("templates, aliases and settings have more than {BYTES_MAX} bytes together");
            return Err(ApiError::illegal_argument(reason));
        }
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, &bytes).map_err(|error| {
            log::error!("http_metadata_not_written error=\"{}\"", error.to_string().escape_debug());
            ApiError::new(500, "exception", "the metadata cannot be written, see the log")
        })
    }
}

/// Replaces a file so that readers see the old or the new content, even after a power failure.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".http-metadata-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_durable_limited_and_atomic() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetadataStore::open(dir.path()).unwrap();
        let add = |store: &MetadataStore, name: &str, text: String| {
            store.update(|metadata| {
                metadata.templates.insert(name.to_owned(), text.into());
                Ok(())
            })
        };
        add(&store, "a", "x".to_owned()).unwrap();
        // The JSON around the two values has 107 bytes.
        let around = serde_json::to_vec(&*store.read()).unwrap().len() + r#","b":"""#.len();
        assert_eq!(add(&store, "b", "y".repeat(BYTES_MAX - around + 1)).map_err(|e| e.status()), Err(400));
        assert_eq!(store.read().templates.len(), 1);
        add(&store, "b", "y".repeat(BYTES_MAX - around)).unwrap();
        let failed: std::result::Result<(), ApiError> = store.update(|metadata| {
            metadata.templates.clear();
            Err(ApiError::missing_body())
        });
        assert!(failed.is_err());
        assert_eq!(MetadataStore::open(dir.path()).unwrap().read(), store.read());
        assert_eq!(store.read().templates.len(), 2);
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(MetadataStore::open(dir.path()).is_err());
    }
}
