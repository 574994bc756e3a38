//! Records gathered by stream, so that the vault gets few large pieces instead of many small ones: each piece costs a
//! job and a write. Runs in the ledger's thread.
//!
//! Invariants: what is gathered stands behind all that the stream's intake has; it is handed on before a checkpoint
//! speaks of it, and before the stream is closed.

use std::io;

use super::{HEAD_BYTES, Ledger, Open, Partition, PartitionId, Taken};
use crate::cc::frame::chunk::{Chunk, Data, Refused};
use crate::cc::vault::intake::Intake;
use crate::cc::vault::pool::{Pool, Size};

/// A stream's bytes are handed on when they are as many: a few streams' fit into a processor's cache.
const STREAM_BYTES: usize = 64 << 10;

/// A stream's least room: there may be many streams of a few small records.
const STREAM_BYTES_MIN: usize = 512;

/// Room of all streams together; beyond it all is handed on.
const ROOM_BYTES_MAX: usize = 32 << 20;

/// Why a record was not taken.
#[derive(Debug)]
pub enum Untaken {
    /// It cannot be used.
    Refused(Refused),
    /// Its stream's file cannot be written.
    Failed(io::Error),
}

impl From<Refused> for Untaken {
    fn from(refused: Refused) -> Untaken {
        Untaken::Refused(refused)
    }
}

impl From<io::Error> for Untaken {
    fn from(error: io::Error) -> Untaken {
        Untaken::Failed(error)
    }
}

/// What a stream has gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    room: Vec<u8>,
    bytes: usize,
}

impl Gathered {
    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Decodes data behind what is there; gives how many bytes came.
    fn decode(&mut self, data: &Data<'_>) -> Result<usize, Refused> {
        let needed = self.bytes + data.bytes_max();
        if needed > self.room.len() {
            self.room.resize(needed.next_power_of_two().max(STREAM_BYTES_MIN), 0);
        }
        let bytes = data.decode(&mut self.room[self.bytes..])?;
        self.bytes += bytes;
        Ok(bytes)
    }

    /// Takes the last `bytes` bytes out.
    fn split_off(&mut self, bytes: usize) -> Gathered {
        let room = self.last(bytes).to_vec();
        self.bytes -= bytes;
        Gathered { room, bytes }
    }

    /// The last `bytes` bytes.
    fn last(&self, bytes: usize) -> &[u8] {
        &self.room[self.bytes - bytes..self.bytes]
    }

    /// Hands all on; the intake counts what an error loses.
    fn hand_on(&mut self, intake: &mut Intake, pool: &Pool) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        for piece in self.room[..bytes].chunks(Size::Large.bytes()) {
            let size = if piece.len() > Size::Small.bytes() { Size::Large } else { Size::Small };
            let mut buffer = pool.take(size);
            buffer[..piece.len()].copy_from_slice(piece);
            intake.feed(buffer, piece.len())?;
        }
        Ok(())
    }
}

impl Ledger {
    /// Takes a record, as [`take`](Self::take) does; gives the number of its stream's bytes too. They are decoded
    /// straight to where their stream gathers, and are on their way into its file at the latest when a checkpoint begins.
    pub fn gather(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> Result<(Taken, usize), Untaken> {
        if offset < self.partitions[partition.0].state.next_offset {
            return Ok((Taken::Repeated, 0));
        }
        let name = chunk.name.as_bytes();
        let mut begin = Gathered::default();
        let bytes = match self.streams.get_mut(name) {
            Some(open) => {
                let room = open.gathered.room.len();
                let bytes = open.gathered.decode(&chunk.data)?;
                self.gathered_room += open.gathered.room.len() - room;
                if open.is_sent_again(open.received() - bytes as u64, open.gathered.last(bytes)) {
                    begin = open.gathered.split_off(bytes);
                }
                bytes
            }
            None => begin.decode(&chunk.data)?,
        };
        if begin.bytes > 0 || !self.streams.contains(name) {
            self.begin(name, begin.last(bytes))?;
            self.gathered_room += begin.room.len();
        }
        let Some(open) = self.streams.peek_mut(name) else {
            return Err(io::Error::other("the stream is gone").into());
        };
        if begin.bytes > 0 {
            open.gathered = begin;
        }
        open.note_gathered(partition, &self.partitions[partition.0], offset, bytes);
        if open.gathered.bytes >= STREAM_BYTES {
            open.hand_on(self.vault.pool())?;
        }
        if self.gathered_room > ROOM_BYTES_MAX {
            self.hand_on()?;
        }
        // Last: a checkpoint on the way here must not vouch for this record.
        self.pass(partition, offset);
        Ok((Taken::New, bytes))
    }

    /// Hands on what all streams have gathered, and gives its room back.
    pub fn hand_on(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.gathered_room) == 0 {
            return Ok(());
        }
        for (_, open) in self.streams.iter_mut().filter(|(_, open)| !open.gathered.room.is_empty()) {
            open.hand_on(self.vault.pool())?;
            open.gathered.room = Vec::new();
        }
        Ok(())
    }
}

impl Open {
    /// Hands on what the stream has gathered.
    pub fn hand_on(&mut self, pool: &Pool) -> io::Result<()> {
        let was_comparing = self.intake.comparing().is_some();
        self.gathered.hand_on(&mut self.intake, pool)?;
        if was_comparing && self.intake.comparing().is_none() {
            self.keep_stored_segments();
        }
        Ok(())
    }

    /// Notes a record, whose bytes are the last ones gathered.
    fn note_gathered(&mut self, id: PartitionId, known: &Partition, offset: i64, bytes: usize) {
        let at = self.received() - bytes as u64;
        if self.head.len() < HEAD_BYTES && at == self.head.len() as u64 {
            let some = bytes.min(HEAD_BYTES - self.head.len());
            self.head.extend_from_slice(&self.gathered.last(bytes)[..some]);
        }
        self.changed = true;
        self.note(known, offset, at, bytes as u64);
        self.partitions.insert((id.0, known.state.partition));
        self.run = known.run;
    }
}
