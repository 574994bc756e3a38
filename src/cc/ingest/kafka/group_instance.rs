//! The id of an output directory as a static member of a consumer group (`group.instance.id`).

use std::fs::File;
use std::io::{self, Read, Write};

use crate::runtime::hex;

/// Name of the file in `.lea` that stores the random part of the id.
pub(crate) const FILE: &str = "instance";

/// Returns the `group.instance.id` of an output directory in consumer group `group`. `file` is its [`FILE`].
///
/// The random part is created on first use and survives restarts, so a restarted lea gets its partitions back. A copy of
/// the directory has the same id, so a copy must not run at the same time as the original.
pub(crate) fn group_instance_id(mut file: File, group: &str) -> io::Result<String> {
    let mut stored = String::new();
    (&mut file).take(256).read_to_string(&mut stored)?;
    if stored.trim().is_empty() {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        stored = hex::encode(&random);
        file.write_all(stored.as_bytes())?;
        file.sync_all()?;
    }
    Ok(format!("lea-{group}-{}", stored.trim()))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn the_id_survives_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let id = || {
            let file = OpenOptions::new().read(true).append(true).create(true).open(&path).unwrap();
            group_instance_id(file, "group").unwrap()
        };
        let first = id();
        assert_eq!(first.len(), "lea-group-".len() + 32);
        assert_eq!(id(), first);
        std::fs::remove_file(&path).unwrap();
        assert_ne!(id(), first);
    }
}
