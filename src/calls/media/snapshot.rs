//! What an index stores of the streams. The tables by which they are found follow from it.

use serde::{Deserialize, Serialize, Serializer};

use super::{MediaCounters, MediaEntry, MediaTable, SignalledEndpoint, USES_MAX, push_newest};
use crate::calls::endpoint::Endpoint;
use crate::calls::rtp::CaptureLoss;

#[derive(Deserialize)]
pub(super) struct Snapshot {
    entries: Vec<MediaEntry>,
    signalled: Vec<(Endpoint, SignalledEndpoint)>,
    loss: CaptureLoss,
    next_serial: u32,
    counters: MediaCounters,
}

/// The same, of a table that stays.
#[derive(Serialize)]
struct SnapshotRef<'t> {
    entries: Vec<&'t MediaEntry>,
    signalled: Vec<(&'t Endpoint, &'t SignalledEndpoint)>,
    loss: &'t CaptureLoss,
    next_serial: u32,
    counters: MediaCounters,
}

impl Serialize for MediaTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut signalled: Vec<_> = self.signalled.iter().collect();
        signalled.sort_unstable_by_key(|(endpoint, _)| **endpoint);
        let snapshot = SnapshotRef {
            entries: self.entries.iter().filter_map(|entry| entry.as_deref()).collect(),
            signalled,
            loss: &self.loss,
            next_serial: self.next_serial,
            counters: self.counters,
        };
        snapshot.serialize(serializer)
    }
}

impl From<Snapshot> for MediaTable {
    fn from(snapshot: Snapshot) -> MediaTable {
        let Snapshot { entries, signalled, loss, next_serial, counters } = snapshot;
        let mut table = MediaTable { loss, next_serial, counters, ..MediaTable::default() };
        for (endpoint, signalled) in signalled {
            for media_use in &signalled.uses {
                push_newest(table.uses_by_port.entry(endpoint.port).or_default(), *media_use, USES_MAX);
            }
            table.format_count += signalled.formats.len();
            table.signalled.insert(endpoint, signalled);
        }
        for (stream, entry) in (0_u32..).zip(entries) {
            for bound in &entry.calls {
                table.by_call.entry(bound.call).or_default().push(stream);
            }
            let is_open = entry.is_open;
            table.entries.push(Some(Box::new(entry)));
            if is_open {
                table.link(stream);
            }
        }
        table
    }
}
