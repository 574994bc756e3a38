//! A record on its way into its stream: gathered behind those before it, or decoded into a buffer of its own. Runs in
//! the thread that polls the records.

use std::io;

use super::super::gather::GATHERING_MAX;
use super::super::intake::Head;
use super::super::manifest::EndReason;
use super::super::pool::{Buffer, Pool, Size};
use super::open::{Came, extend_head, is_sent_again};
use super::{Ledger, PartitionId};
use crate::cc::frame::chunk::{Chunk, Data, Refused};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its bytes are on their way into the stream's file.
    New,
    /// It was taken before.
    Repeated,
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum Untaken {
    /// Its content cannot be used; nothing was changed.
    Refused(Refused),
    /// A file cannot be written. Nothing more is taken, and no checkpoint is written any more.
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

impl Ledger {
    /// Takes a record: the next bytes of its stream.
    pub fn take(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<Taken, Untaken> {
        if offset < self.partitions[partition.0].state.next_offset {
            return Ok(Taken::Repeated);
        }
        if !self.gather(partition, offset, chunk)? {
            let taken = self.take_apart(partition, offset, chunk);
            self.failed |= matches!(taken, Err(Untaken::Failed(_)));
            taken?;
        }
        // Last: a checkpoint on the way here must not vouch for this record.
        self.pass(partition, offset);
        Ok(Taken::New)
    }

    /// The usual way: decodes a record behind those that are gathered. False if it has to go the long way.
    fn gather(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<bool, Refused> {
        self.begin_read(partition, offset);
        let Some(open) = self.streams.get_mut(chunk.name.as_bytes()) else { return Ok(false) };
        let Some(room) = open.gather.room(chunk.data.bytes_max()) else { return Ok(false) };
        let bytes = chunk.data.decode(room)?;
        if is_sent_again(&open.head, open.received, &room[..bytes]) {
            return Ok(false);
        }
        extend_head(&mut open.head, open.received, &room[..bytes]);
        let came = Came::new(offset, self.round, &room[..bytes]);
        open.gather.add(bytes);
        self.taken_bytes += bytes as u64;
        open.note(&self.partitions[partition.0].state, came);
        Ok(true)
    }

    /// Decodes a record into a buffer of its own: the first one of a stream, one that is sent again, one that found no
    /// room.
    fn take_apart(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<(), Untaken> {
        let name = chunk.name.as_bytes();
        let content = Content::of(&chunk.data, self.vault.pool())?;
        self.be_open(name, content.bytes())?;
        if self.gathering >= GATHERING_MAX {
            self.hand_over()?;
        }
        let open = self.streams.get_mut(name).ok_or_else(|| io::Error::other("the stream is gone"))?;
        extend_head(&mut open.head, open.received, content.bytes());
        self.gathering -= usize::from(open.hand_over()?);
        self.taken_bytes += content.bytes().len() as u64;
        let came = Came::new(offset, self.round, content.bytes());
        open.note(&self.partitions[partition.0].state, came);
        match content {
            Content::Buffer(buffer, bytes) => match open.gather.start(buffer, bytes) {
                None => self.gathering += 1,
                Some(buffer) => open.feed(buffer, bytes)?,
            },
            Content::Large(bytes) => {
                for piece in bytes.chunks(Size::Large.bytes()) {
                    let mut buffer = self.vault.pool().take(Size::Large);
                    buffer[..piece.len()].copy_from_slice(piece);
                    open.feed(buffer, piece.len())?;
                }
            }
        }
        Ok(())
    }

    /// Opens the stream that goes on with `data`, unless it is open and goes on.
    fn be_open(&mut self, name: &[u8], data: &[u8]) -> io::Result<()> {
        let head = match self.streams.peek(name) {
            None => {
                self.make_room()?;
                None
            }
            Some(open) if is_sent_again(&open.head, open.received, data) => {
                self.checkpoint_now()?;
                if let Some(open) = self.streams.pop(name) {
                    open.finish(EndReason::Eof, &self.partitions);
                }
                Some(Head::Capture)
            }
            Some(_) => return Ok(()),
        };
        let open = self.enter(name, data, head)?;
        self.streams.put(name.into(), open);
        self.begun += 1;
        Ok(())
    }

    /// Hands over what is gathered: after some milliseconds at the latest, so that who reads the files sees it.
    pub fn hand_over(&mut self) -> io::Result<()> {
        for (_, open) in self.streams.iter_mut() {
            if self.gathering == 0 {
                break;
            }
            // Counted first: after a failure nothing is handed over any more.
            self.gathering -= usize::from(!open.gather.is_empty());
            open.hand_over().inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }

    /// True if something is gathered.
    pub fn is_gathering(&self) -> bool {
        self.gathering > 0
    }
}

/// A record's content, decoded.
enum Content {
    /// The first bytes of a buffer.
    Buffer(Buffer, usize),
    /// More than a buffer holds.
    Large(Vec<u8>),
}

impl Content {
    fn of(data: &Data<'_>, pool: &Pool) -> std::result::Result<Content, Refused> {
        let size = match data.bytes_max() {
            bytes if bytes <= Size::Small.bytes() => Size::Small,
            bytes if bytes <= Size::Large.bytes() => Size::Large,
            bytes => {
                let mut large = vec![0; bytes];
                let bytes = data.decode(&mut large)?;
                large.truncate(bytes);
                return Ok(Content::Large(large));
            }
        };
        let mut buffer = pool.take(size);
        let bytes = data.decode(&mut buffer)?;
        Ok(Content::Buffer(buffer, bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Content::Buffer(buffer, bytes) => &buffer[..*bytes],
            Content::Large(bytes) => bytes,
        }
    }
}
