//! The embedded event store on a disk that fills up, used as a library.

use lea::search::document::{Document, WriteMode};
use lea::search::query::Query;
use lea::search::sqlite::{SqliteStore, StoreConfig};
use lea::search::store::{Store, StoreError};

use crate::support::tmpfs::Tmpfs;
use crate::support::{DEADLINE, Workdir, wait_for};

/// An event with a unique id that does not compress well.
fn event(n: u64) -> Document {
    let noise: String = (1..60).map(|at| format!("{:x}", (n + 1) * 2_654_435_761 * at)).collect();
    let source = format!("{{\"n\":{n},\"noise\":\"{noise}\"}}").into_bytes().into();
    Document {
        index: "calls".into(),
        doc_type: None,
        id: Some(n.to_string()),
        mode: WriteMode::Index,
        source,
    }
}

#[test]
fn the_store_goes_on_when_a_full_disk_has_room_again() {
    let work = Workdir::new();
    let disk = Tmpfs::mount(&work, 24 << 20);
    let dir = disk.join("out");
    let store = SqliteStore::open(&dir, StoreConfig::default()).unwrap();
    let count = || store.count(&[], false, &Query::All).unwrap();
    for n in 0..100 {
        store.write(vec![event(n)]).unwrap();
    }
    disk.fill(0);
    let mut written = 100;
    let error = loop {
        match store.write(vec![event(written)]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full), "{error}");
    assert_eq!(count(), written);
    disk.free();
    for n in written..written + 100 {
        store.write(vec![event(n)]).unwrap();
    }
    assert_eq!(count(), written + 100);
    drop(store);
    // A child that another test has just forked holds the lock too, until it starts its program.
    let store = wait_for(DEADLINE, "the lock of the store", || {
        match SqliteStore::open(&dir, StoreConfig::default()) {
            Err(lea::Error::Locked { .. }) => None,
            opened => Some(opened.unwrap()),
        }
    });
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), written + 100);
}
