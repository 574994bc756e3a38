//! Records that arrive after later ones of their stream. They are kept in memory and then inserted into the closed files,
//! because each insertion writes a file anew. Until then they count as neither stored nor committed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::gaps::gaps;
use super::record_trail;
use super::{Ledger, PartitionId};
use crate::cc::vault::PendingStream;
use crate::cc::vault::insertion::{self, Insertions, LateRecord};
use crate::cc::vault::manifest::{EndReason, RecordSegment};
use crate::cc::wire::chunk::{Chunk, ChunkError};
use crate::runtime::hex;

/// Limit on the content of late records in memory.
const LATE_BYTES_MAX: usize = 32 << 20;

/// Memory of a record besides its content.
const RECORD_COST: usize = 256;

/// Late records by stream name.
#[derive(Default)]
pub(super) struct LateRecords {
    streams: BTreeMap<Box<[u8]>, Vec<LateRecord>>,
    offsets: BTreeSet<(PartitionId, i64)>,
    /// Memory of the records.
    bytes: usize,
    /// Content of all late records so far.
    accepted_bytes: u64,
}

/// What can be done with a record whose partition has higher offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LatePlace {
    /// Its stream has no later record, so it can be appended.
    AtEnd,
    /// It was kept, and will be inserted.
    Kept,
    /// It was kept before.
    Duplicate,
    /// It cannot be inserted.
    Impossible,
}

impl LateRecords {
    /// Returns the number of content bytes of all late records so far.
    pub(super) fn accepted_bytes(&self) -> u64 {
        self.accepted_bytes
    }

    /// Returns the lowest offset of a partition.
    pub(super) fn lowest(&self, partition: PartitionId) -> Option<i64> {
        let first = self.offsets.range((partition, i64::MIN)..=(partition, i64::MAX)).next();
        first.map(|(_, offset)| *offset)
    }
}

impl Ledger {
    /// Returns whether records wait to be inserted.
    pub(crate) fn has_late_records(&self) -> bool {
        !self.late.offsets.is_empty()
    }

    /// Keeps a record that belongs before stored ones, if it can be inserted there.
    pub(super) fn place_late(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> Result<LatePlace, super::AcceptError> {
        if self.late.offsets.contains(&(partition, offset)) {
            return Ok(LatePlace::Duplicate);
        }
        let name = chunk.name.as_bytes();
        let known = &self.partitions[partition.0].state;
        let is_later = |segment: &RecordSegment| segment.next_offset > offset && known.is_segment(segment);
        let record = || -> Result<LateRecord, ChunkError> {
            let mut content = vec![0; chunk.data.decoded_bytes_max()];
            let bytes = chunk.data.decode(&mut content)?;
            content.truncate(bytes);
            Ok(LateRecord { segment: known.segment_of(offset, content.len() as u64), content })
        };
        let kept = if let Some(stream) = self.streams.get(name) {
            let segments = &stream.info.segments;
            if !segments.list.iter().any(is_later) {
                return Ok(LatePlace::AtEnd);
            }
            let record = record()?;
            let is_possible = stream.writer.is_first_part(name)
                && segments.omitted == 0
                && insertion::is_possible(&segments.list, stream.received_bytes(), stream.head(), &record);
            is_possible.then_some(record)
        } else {
            // The comparison of a re-send continues when the stream is opened.
            let compared = self.comparisons.get(&hex::encode(name)).map(|compared| &compared.segments);
            let is_compared = compared.is_some_and(|segments| segments.iter().any(is_later));
            let pending = self.pend_stream(name)?;
            if !is_compared && !pending.stored_segments().any(is_later) {
                return Ok(LatePlace::AtEnd);
            }
            let record = record()?;
            let is_possible = !is_compared && pending.can_insert(&record)?;
            is_possible.then_some(record)
        };
        let Some(record) = kept else { return Ok(LatePlace::Impossible) };
        self.late.bytes += record.content.len() + RECORD_COST;
        self.late.accepted_bytes += record.content.len() as u64;
        self.late.offsets.insert((partition, offset));
        self.late.streams.entry(name.into()).or_default().push(record);
        if self.late.bytes > LATE_BYTES_MAX {
            self.insert_late()?;
        }
        Ok(LatePlace::Kept)
    }

    /// Inserts the late records into their files.
    pub(crate) fn insert_late(&mut self) -> io::Result<()> {
        if !self.has_late_records() {
            return Ok(());
        }
        let inserted = self.build_insertions().and_then(|built| self.apply_insertions(built));
        self.has_failed |= inserted.is_err();
        inserted
    }

    /// Writes the new files. The names of the streams are locked until the files have their names.
    pub(super) fn build_insertions(&mut self) -> io::Result<(Insertions, Vec<PendingStream>)> {
        self.flush_coalesced()?;
        let names: Vec<Box<[u8]>> = self.late.streams.keys().cloned().collect();
        // The bytes of a stream must be in a checkpoint before it is closed.
        self.finish_checkpoint()?;
        for name in &names {
            if let Some(stream) = self.streams.remove(name)? {
                record_trail::finish(stream, EndReason::Idle, &self.partitions);
            }
        }
        let pending_streams =
            names.iter().map(|name| self.pend_stream(name)).collect::<io::Result<Vec<_>>>()?;
        // After this, nothing syncs the old files any more.
        self.finish_checkpoint()?;
        let kept = LateRecords { accepted_bytes: self.late.accepted_bytes, ..LateRecords::default() };
        let late = std::mem::replace(&mut self.late, kept);
        let mut insertions = Insertions::default();
        for (partition, offset) in &late.offsets {
            let range = self.partitions[partition.0].add(*offset);
            insertions.ranges.push(range);
        }
        self.has_closed_gaps = true;
        for (pending, records) in pending_streams.iter().zip(late.streams.into_values()) {
            let Some(manifest) = pending.first_part().cloned() else {
                return Err(io::Error::other("the file that late records belong to is no longer there"));
            };
            let is_gap = |before: &RecordSegment, after: &RecordSegment| {
                let is = |known: &&super::LedgerPartition| known.state.is_segment(after);
                let known = self.partitions.iter().find(is);
                known.is_some_and(|known| known.first_missing(before.next_offset) < after.first_offset)
            };
            let manifest = insertions.add_file(&self.shared, manifest, records, &is_gap)?;
            let gaps = gaps(&manifest.segments, manifest.segments_omitted, &self.partitions);
            manifest.set_gaps(gaps);
        }
        Ok((insertions, pending_streams))
    }

    pub(super) fn apply_insertions(&mut self, built: (Insertions, Vec<PendingStream>)) -> io::Result<()> {
        let (insertions, locked) = built;
        insertions.commit(&self.shared)?;
        self.shared.disk_retry.retry("write", "-", || insertions.apply(&self.shared.dir))?;
        drop(locked);
        self.rewrites_log = true;
        self.finish_checkpoint()?;
        insertion::remove(&self.shared.dir)
    }
}
