//! What an index stores of the streams. The tables by which they are found follow from it.

use super::{MediaSnapshot, MediaTable, USES_MAX, push_newest};

impl MediaTable {
    pub(crate) fn to_snapshot(&self) -> MediaSnapshot {
        let mut signalled: Vec<_> =
            self.signalled.iter().map(|(endpoint, signalled)| (*endpoint, signalled.clone())).collect();
        signalled.sort_unstable_by_key(|(endpoint, _)| *endpoint);
        let entries = self.entries.iter().filter_map(|entry| Some(entry.as_deref()?.clone())).collect();
        MediaSnapshot {
            entries,
            signalled,
            loss: self.loss.clone(),
            next_serial: self.next_serial,
            counters: self.counters,
        }
    }

    pub(crate) fn from_snapshot(snapshot: MediaSnapshot) -> MediaTable {
        let MediaSnapshot { loss, next_serial, counters, .. } = snapshot;
        let mut table = MediaTable { loss, next_serial, counters, ..MediaTable::default() };
        for (endpoint, signalled) in snapshot.signalled {
            for media_use in &signalled.uses {
                push_newest(table.uses_by_port.entry(endpoint.port).or_default(), *media_use, USES_MAX);
            }
            table.format_count += signalled.formats.len();
            table.signalled.insert(endpoint, signalled);
        }
        for (stream, entry) in (0_u32..).zip(snapshot.entries) {
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
