//! Locks on stream names. At most one stream of a name has the exclusive lock and may continue a stored file.
//! Streams that arrive while it is open get a concurrent lock and write to new parts.
//!
//! A lock is held until the manifest of its part is closed and published, so the next holder of an exclusive
//! lock reads a file that no longer changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::manifest::StreamSource;
use super::part::StreamPart;

/// Time that a stream waits for the end of another stream of the same name.
pub const SAME_NAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit on the streams of one name that are probed. A sender that reconnects leaves one or two stale
/// connections. More than that are not stale, and probing them all would take long.
const PROBED_MAX: usize = 8;

/// Interval between checks for a shutdown.
const SHUTDOWN_POLL: Duration = Duration::from_millis(250);

/// Detects quickly whether the peer of an open stream is still there.
pub trait PeerProbe: Send + Sync {
    /// Starts (`true`) or stops (`false`) probing.
    fn probe(&self, on: bool);
}

/// All stream names that are locked.
#[derive(Default)]
pub(super) struct NameLocks {
    held: Mutex<HashMap<NameKey, NameHolders>>,
}

/// The same name over TCP and over Kafka means two different streams.
type NameKey = (StreamSource, Arc<[u8]>);

fn name_key(source: StreamSource, name: &[u8]) -> NameKey {
    // A dump has the streams of its topic.
    (if source.is_kafka() { StreamSource::Kafka } else { source }, name.into())
}

#[derive(Default)]
struct NameHolders {
    /// Open streams.
    live: Vec<LiveHolder>,
    /// Number of ended streams whose files are still being closed or recovered.
    closing: usize,
    /// All parts below this number are known to exist.
    next_part: u32,
    next_holder: u64,
    /// Notified when the name is unlocked. Each name has its own, so that only its waiters wake up.
    freed: Arc<Condvar>,
}

/// An open stream of a name.
struct LiveHolder {
    id: u64,
    /// The probe of its peer.
    probe: Arc<dyn PeerProbe>,
    /// The part that it writes to, once there is one.
    part: Option<Arc<StreamPart>>,
}

/// How a name is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockMode {
    /// No other stream has the name. The stream may continue a stored file.
    Exclusive,
    /// Another stream of the same name is open. The stream writes to a new part.
    Concurrent,
}

/// A locked name. Dropping it unlocks the name.
pub(super) struct NameLock {
    names: Arc<NameLocks>,
    key: NameKey,
    /// Id among the open streams. `None` once the stream is closing.
    holder: Option<u64>,
    mode: LockMode,
}

impl NameLocks {
    /// Locks a name for a stream. Waits for files of this name to be closed. Waits up to
    /// [`SAME_NAME_TIMEOUT`] for open streams of this name to end, and probes their peers meanwhile.
    /// `stopping` ends the wait early.
    pub(super) fn acquire(
        self: &Arc<NameLocks>,
        source: StreamSource,
        name: &[u8],
        probe: Arc<dyn PeerProbe>,
        stopping: impl Fn() -> bool,
    ) -> NameLock {
        let key = name_key(source, name);
        let mut held = self.table();
        let mut probing: Vec<Arc<dyn PeerProbe>> = Vec::new();
        let mut deadline = None;
        let mode = loop {
            let Some(holders) = held.get(&key) else { break LockMode::Exclusive };
            if !holders.live.is_empty() {
                if deadline.is_none() {
                    deadline = Some(Instant::now() + SAME_NAME_TIMEOUT);
                    let few = if holders.live.len() > PROBED_MAX { &[][..] } else { &holders.live[..] };
                    probing = few.iter().map(|holder| Arc::clone(&holder.probe)).collect();
                    probing.iter().for_each(|probe| probe.probe(true));
                }
                if stopping() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break LockMode::Concurrent;
                }
            }
            let freed = Arc::clone(&holders.freed);
            let timeout = deadline
                .map_or(SHUTDOWN_POLL, |at| at.saturating_duration_since(Instant::now()).min(SHUTDOWN_POLL));
            held = freed.wait_timeout(held, timeout).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        };
        let holders = held.entry(key.clone()).or_default();
        let holder = holders.next_holder;
        holders.next_holder += 1;
        holders.live.push(LiveHolder { id: holder, probe, part: None });
        drop(held);
        probing.iter().for_each(|probe| probe.probe(false));
        NameLock { names: Arc::clone(self), key, holder: Some(holder), mode }
    }

    /// Locks a name whose file is being recovered.
    pub(super) fn acquire_for_recovery(self: &Arc<NameLocks>, source: StreamSource, name: &[u8]) -> NameLock {
        let key = name_key(source, name);
        self.table().entry(key.clone()).or_default().closing += 1;
        NameLock { names: Arc::clone(self), key, holder: None, mode: LockMode::Exclusive }
    }

    /// Locks a name for a recovery unless anything else has locked it.
    pub(super) fn try_acquire_for_recovery(
        self: &Arc<NameLocks>,
        source: StreamSource,
        name: &[u8],
    ) -> Option<NameLock> {
        let key = name_key(source, name);
        match self.table().entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                entry.insert(NameHolders::default()).closing += 1;
                Some(NameLock { names: Arc::clone(self), key, holder: None, mode: LockMode::Exclusive })
            }
        }
    }

    /// Returns whether any stream has locked the name.
    pub(super) fn is_locked(&self, source: StreamSource, name: &[u8]) -> bool {
        self.table().contains_key(&name_key(source, name))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<NameKey, NameHolders>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl NameLock {
    /// Name as sent.
    pub(super) fn name(&self) -> &Arc<[u8]> {
        &self.key.1
    }

    pub(super) fn mode(&self) -> LockMode {
        self.mode
    }

    /// Records that the stream has ended. The name stays locked until this value is dropped.
    pub(super) fn mark_closing(&mut self) {
        let Some(holder) = self.holder.take() else { return };
        if let Some(holders) = self.names.table().get_mut(&self.key) {
            holders.live.retain(|live| live.id != holder);
            holders.closing += 1;
        }
    }

    /// Records the part that the stream writes to.
    pub(super) fn set_part(&self, part: &Arc<StreamPart>) {
        if let Some(holders) = self.names.table().get_mut(&self.key)
            && let Some(live) = holders.live.iter_mut().find(|live| Some(live.id) == self.holder)
        {
            live.part = Some(Arc::clone(part));
        }
    }

    /// Returns the part of the open stream of this name that started first.
    pub(super) fn first_open_part(&self) -> Option<Arc<StreamPart>> {
        let table = self.names.table();
        table.get(&self.key)?.live.iter().find_map(|live| live.part.clone())
    }

    /// Returns the lowest part number that may be free.
    pub(super) fn next_part(&self) -> u32 {
        self.names.table().get(&self.key).map_or(1, |holders| holders.next_part.max(1))
    }

    /// Records that all parts up to `part` exist.
    pub(super) fn mark_part_taken(&self, part: u32) {
        if let Some(holders) = self.names.table().get_mut(&self.key) {
            holders.next_part = holders.next_part.max(part + 1);
        }
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.names.table().entry(self.key.clone()) {
            let holders = entry.get_mut();
            match self.holder {
                Some(holder) => holders.live.retain(|live| live.id != holder),
                None => holders.closing -= 1,
            }
            if holders.live.is_empty() && holders.closing == 0 {
                // Waiters are notified only when the name is completely unlocked.
                entry.remove().freed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};

    #[derive(Default)]
    struct Counting(AtomicI32);

    impl PeerProbe for Counting {
        fn probe(&self, on: bool) {
            self.0.fetch_add(if on { 1 } else { -1 }, Ordering::SeqCst);
        }
    }

    fn claim(names: &Arc<NameLocks>, probe: &Arc<Counting>, stopping: bool) -> NameLock {
        names.acquire(StreamSource::Tcp, b"name", Arc::clone(probe) as Arc<dyn PeerProbe>, || stopping)
    }

    #[test]
    fn a_name_is_unlocked_when_its_lock_is_dropped() {
        let (names, probe) = (Arc::new(NameLocks::default()), Arc::default());
        let first = claim(&names, &probe, false);
        assert_eq!(first.mode(), LockMode::Exclusive);
        drop(first);
        assert!(!names.is_locked(StreamSource::Tcp, b"name"));
        assert_eq!(claim(&names, &probe, false).mode(), LockMode::Exclusive);
    }

    #[test]
    fn an_open_stream_is_probed_and_then_the_lock_is_concurrent() {
        let (names, probe) = (Arc::new(NameLocks::default()), Arc::default());
        let first = claim(&names, &probe, false);
        first.mark_part_taken(1);
        let started = Instant::now();
        let second = claim(&names, &probe, false);
        assert_eq!((second.mode(), second.next_part()), (LockMode::Concurrent, 2));
        assert!(started.elapsed() >= SAME_NAME_TIMEOUT);
        assert_eq!(probe.0.load(Ordering::SeqCst), 0, "probing has stopped");
        assert_eq!(claim(&names, &probe, true).mode(), LockMode::Concurrent, "a shutdown ends the wait");
    }

    #[test]
    fn a_lock_waits_for_a_file_that_is_being_closed() {
        let (names, probe) = (Arc::new(NameLocks::default()), Arc::new(Counting::default()));
        let mut first = claim(&names, &probe, false);
        let second = std::thread::spawn({
            let (names, probe) = (names.clone(), probe.clone());
            move || claim(&names, &probe, false).mode()
        });
        while probe.0.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        first.mark_closing();
        assert!(names.is_locked(StreamSource::Tcp, b"name"));
        drop(first);
        assert_eq!(second.join().unwrap(), LockMode::Exclusive);
        assert_eq!(probe.0.load(Ordering::SeqCst), 0);
    }
}
