//! Who holds a stream name now. A name has at most one stream that goes on with what is stored (exclusive); streams
//! that come while it lives get parts of their own (beside).
//!
//! A claim is held until the manifest of its part is closed and in place, so whoever gets the next exclusive claim
//! reads a file that no longer changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::manifest::Source;

/// How long a stream waits for the end of another one of its name.
pub const END_WAIT: Duration = Duration::from_secs(5);

/// So many streams of a name are probed. A sender that comes back has left one or two behind; where there are more,
/// they are no remains, and to probe them all would take long.
const PROBED_MAX: usize = 8;

/// Between two looks for a stop.
const STEP: Duration = Duration::from_millis(250);

/// Finds out quickly whether the peer of an open stream is still there.
pub trait Probe: Send + Sync {
    /// Starts (true) or ends (false) probing.
    fn probe(&self, on: bool);
}

/// All names that are held.
#[derive(Default)]
pub struct Names {
    held: Mutex<HashMap<Key, Holders>>,
}

/// A name has one source: over TCP and over Kafka it is two streams.
type Key = (Source, Arc<[u8]>);

#[derive(Default)]
struct Holders {
    /// Streams that are open.
    live: Vec<(u64, Arc<dyn Probe>)>,
    /// Streams that have ended and whose files are being closed, or are being recovered.
    closing: usize,
    /// Below this number all parts are known to be taken.
    next_part: u32,
    next_holder: u64,
    /// Told when the name is free. One a name, so that nobody is woken for another one.
    freed: Arc<Condvar>,
}

/// How a name was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody else has it: the stream may go on with what is stored.
    Exclusive,
    /// Another stream of this name lives: a part of its own.
    Beside,
}

/// A name held; let go of when dropped.
pub struct Claim {
    names: Arc<Names>,
    key: Key,
    /// The place among the live holders; `None` once closing.
    holder: Option<u64>,
    standing: Standing,
}

impl Names {
    /// Claims a name for a stream. Waits for files of this name that are being closed, and up to [`END_WAIT`] for
    /// the end of streams that are open, while they are probed. `stopping` cuts the waiting short.
    pub fn claim(
        self: &Arc<Names>,
        source: Source,
        name: &[u8],
        probe: Arc<dyn Probe>,
        stopping: impl Fn() -> bool,
    ) -> Claim {
        let key: Key = (source, name.into());
        let mut held = self.lock();
        let mut probing: Vec<Arc<dyn Probe>> = Vec::new();
        let mut deadline = None;
        let standing = loop {
            let Some(holders) = held.get(&key) else { break Standing::Exclusive };
            if !holders.live.is_empty() {
                if deadline.is_none() {
                    deadline = Some(Instant::now() + END_WAIT);
                    let few = if holders.live.len() > PROBED_MAX { &[][..] } else { &holders.live[..] };
                    probing = few.iter().map(|(_, probe)| Arc::clone(probe)).collect();
                    probing.iter().for_each(|probe| probe.probe(true));
                }
                if stopping() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break Standing::Beside;
                }
            }
            let freed = Arc::clone(&holders.freed);
            let timeout = deadline.map_or(STEP, |at| at.saturating_duration_since(Instant::now()).min(STEP));
            held = freed.wait_timeout(held, timeout).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        };
        let holders = held.entry(key.clone()).or_default();
        let holder = holders.next_holder;
        holders.next_holder += 1;
        holders.live.push((holder, probe));
        drop(held);
        probing.iter().for_each(|probe| probe.probe(false));
        Claim { names: Arc::clone(self), key, holder: Some(holder), standing }
    }

    /// Holds a name whose file is being recovered.
    pub fn hold(self: &Arc<Names>, source: Source, name: &[u8]) -> Claim {
        let key: Key = (source, name.into());
        self.lock().entry(key.clone()).or_default().closing += 1;
        Claim { names: Arc::clone(self), key, holder: None, standing: Standing::Exclusive }
    }

    /// True if any stream has the name.
    pub fn is_held(&self, source: Source, name: &[u8]) -> bool {
        self.lock().contains_key(&(source, name.into()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Holders>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Claim {
    /// The name as sent.
    pub fn name(&self) -> &Arc<[u8]> {
        &self.key.1
    }

    /// Whether others have it too.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The stream has ended; the name stays held until the claim is dropped.
    pub fn closing(&mut self) {
        let Some(holder) = self.holder.take() else { return };
        if let Some(holders) = self.names.lock().get_mut(&self.key) {
            holders.live.retain(|(id, _)| *id != holder);
            holders.closing += 1;
        }
    }

    /// Below this part number all are taken.
    pub fn next_part(&self) -> u32 {
        self.names.lock().get(&self.key).map_or(1, |holders| holders.next_part.max(1))
    }

    /// Part `part` is taken, and so are all below it.
    pub fn took_part(&self, part: u32) {
        if let Some(holders) = self.names.lock().get_mut(&self.key) {
            holders.next_part = holders.next_part.max(part + 1);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.names.lock().entry(self.key.clone()) {
            let holders = entry.get_mut();
            match self.holder {
                Some(holder) => holders.live.retain(|(id, _)| *id != holder),
                None => holders.closing -= 1,
            }
            if holders.live.is_empty() && holders.closing == 0 {
                // Only now there is something to gain for those that wait.
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

    impl Probe for Counting {
        fn probe(&self, on: bool) {
            self.0.fetch_add(if on { 1 } else { -1 }, Ordering::SeqCst);
        }
    }

    fn claim(names: &Arc<Names>, probe: &Arc<Counting>, stopping: bool) -> Claim {
        names.claim(Source::Tcp, b"name", Arc::clone(probe) as Arc<dyn Probe>, || stopping)
    }

    #[test]
    fn a_name_is_free_again_when_its_holder_is_gone() {
        let (names, probe) = (Arc::new(Names::default()), Arc::default());
        let first = claim(&names, &probe, false);
        assert_eq!(first.standing(), Standing::Exclusive);
        drop(first);
        assert!(!names.is_held(Source::Tcp, b"name"));
        assert_eq!(claim(&names, &probe, false).standing(), Standing::Exclusive);
    }

    #[test]
    fn a_stream_that_lives_is_probed_and_then_has_company() {
        let (names, probe) = (Arc::new(Names::default()), Arc::default());
        let first = claim(&names, &probe, false);
        first.took_part(1);
        let started = Instant::now();
        let second = claim(&names, &probe, false);
        assert_eq!((second.standing(), second.next_part()), (Standing::Beside, 2));
        assert!(started.elapsed() >= END_WAIT);
        assert_eq!(probe.0.load(Ordering::SeqCst), 0, "probing was ended");
        assert_eq!(claim(&names, &probe, true).standing(), Standing::Beside, "a stop does not wait");
    }

    #[test]
    fn a_file_that_is_being_closed_is_waited_for() {
        let (names, probe) = (Arc::new(Names::default()), Arc::new(Counting::default()));
        let mut first = claim(&names, &probe, false);
        let second = std::thread::spawn({
            let (names, probe) = (names.clone(), probe.clone());
            move || claim(&names, &probe, false).standing()
        });
        while probe.0.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        first.closing();
        assert!(names.is_held(Source::Tcp, b"name"));
        drop(first);
        assert_eq!(second.join().unwrap(), Standing::Exclusive);
        assert_eq!(probe.0.load(Ordering::SeqCst), 0);
    }
}
