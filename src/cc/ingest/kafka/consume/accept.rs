//! Stores one record in the ledger, or keeps it as a dead letter.

use crate::cc::ingest::kafka::client::KafkaRecord;
use crate::cc::kafka_dump::format::{KafkaPosition, RecordDeadLetter};
use crate::cc::vault::ledger::{AcceptError, Accepted, Ledger, PartitionId};
use crate::cc::wire::chunk::{self, ChunkError};

pub(super) enum RecordOutcome {
    /// The record was stored in a stream.
    New,
    /// The record was stored before.
    Duplicate,
    /// The record was rejected.
    Letter,
    /// The record was not stored, because it belongs before stored ones or may be stored already.
    Late,
    /// The record has neither key nor value, and becomes a gap.
    Empty,
}

/// Stores one record.
pub(super) fn accept_record(
    ledger: &mut Ledger,
    id: PartitionId,
    record: &KafkaRecord<'_>,
) -> std::io::Result<RecordOutcome> {
    if record.key.is_none() && record.value.is_none() {
        ledger.skip_to(id, record.offset + 1);
        return Ok(RecordOutcome::Empty);
    }
    let chunk = record.value.ok_or(ChunkError::NoValue).and_then(chunk::parse);
    let accepted =
        chunk.map_err(AcceptError::from).and_then(|chunk| ledger.accept(id, record.offset, &chunk));
    match accepted {
        Ok(Accepted::New) => Ok(RecordOutcome::New),
        Ok(Accepted::Duplicate) => Ok(RecordOutcome::Duplicate),
        Ok(accepted @ (Accepted::Late | Accepted::Unknown)) => {
            log_late(record, accepted);
            Ok(RecordOutcome::Late)
        }
        Err(AcceptError::Failed(error)) => Err(error),
        Err(AcceptError::Rejected(refused)) => keep_dead_letter(ledger, id, record, &refused),
    }
}

fn log_late(record: &KafkaRecord<'_>, accepted: Accepted) {
    let KafkaRecord { topic, partition, offset, .. } = *record;
    let note = match accepted {
        Accepted::Unknown => "not stored: the directory has too many gaps to know whether it has this record",
        _ => "not stored: the directory has later records of the stream; consume into another directory",
    };
    log::warn!("record_late topic={topic} partition={partition} offset={offset} note=\"{note}\"");
}

fn keep_dead_letter(
    ledger: &mut Ledger,
    id: PartitionId,
    record: &KafkaRecord<'_>,
    refused: &ChunkError,
) -> std::io::Result<RecordOutcome> {
    let KafkaRecord { topic, partition, offset, value, .. } = *record;
    let reason = refused.to_string();
    let position = Some(KafkaPosition { topic, partition, offset });
    let letter = RecordDeadLetter { position, source: None, reason: &reason, value };
    match ledger.store_dead_letter(id, offset, &letter.to_line())? {
        Accepted::New => {}
        Accepted::Duplicate => return Ok(RecordOutcome::Duplicate),
        late @ (Accepted::Late | Accepted::Unknown) => {
            log_late(record, late);
            return Ok(RecordOutcome::Late);
        }
    }
    let word = refused.as_str();
    log::warn!("record_rejected topic={topic} partition={partition} offset={offset} reason=\"{word}\"");
    Ok(RecordOutcome::Letter)
}
