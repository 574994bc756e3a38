//! Stores the bytes of a stream in one file after another: `--rotate-size`, `--rotate-interval`. Runs in the stream's own
//! thread.
//!
//! Order of a rotation: the next part is created, with a manifest that says what it continues, and the headers are queued;
//! then the last part ends. A crash in between leaves a part without content, which nobody continues.

use std::io;
use std::sync::Arc;

use super::{StreamWriter, WriterState};
use crate::capture::header_copy::HeaderCopy;
use crate::cc::vault::manifest::{EndReason, Manifest, PartPosition, Rotation};
use crate::cc::vault::packet_aligner::PacketAligner;
use crate::cc::vault::part::StreamPart;
use crate::cc::vault::pool::{Buffer, BufferSize};
use crate::cc::vault::rotation::Cut;
use crate::cc::vault::stored_parts;

impl StreamWriter {
    /// Stores the next bytes of the stream. After an error, they are counted as lost, as far as they are.
    pub(super) fn store(&mut self, buffer: Buffer, bytes: usize) -> io::Result<()> {
        let part = self.part()?;
        match self.next_cut(&part, &buffer[..bytes]) {
            None => {
                self.copy_headers(&buffer[..bytes]);
                let taken = self.shared.queue.accept_bytes(&part, buffer, bytes);
                taken.inspect_err(|_| self.record_loss(bytes as u64))
            }
            Some(cut) => {
                // A thread that waits for a buffer holds none.
                let content = buffer[..bytes].to_vec();
                drop(buffer);
                self.store_cut(part, &content, cut)
            }
        }
    }

    /// Stores bytes in several parts, the first of which ends at the cut.
    fn store_cut(&mut self, mut part: Arc<StreamPart>, mut content: &[u8], cut: Cut) -> io::Result<()> {
        let mut next_cut = Some(cut);
        loop {
            let cut = next_cut.take();
            let (head, rest) = content.split_at(cut.as_ref().map_or(content.len(), |cut| cut.bytes));
            self.copy_headers(head);
            let stored = self.accept(&part, head);
            stored.inspect_err(|_| self.record_loss(content.len() as u64))?;
            let Some(cut) = cut else { return Ok(()) };
            let next = self.start_next_part(&part, &cut.headers);
            part = next.inspect_err(|_| self.record_loss(rest.len() as u64))?;
            content = rest;
            next_cut = self.next_cut(&part, content);
        }
    }

    /// Returns where the file ends. Logs once if it cannot be ended.
    fn next_cut(&mut self, part: &StreamPart, content: &[u8]) -> Option<Cut> {
        let rotator = self.rotator.as_mut()?;
        let found = rotator.next_cut(part.aligner().tracker(), content);
        found.unwrap_or_else(|reason| {
            if rotator.refuse() {
                log::warn!("stream_not_rotated file={} reason={reason}", part.file);
            }
            None
        })
    }

    fn copy_headers(&mut self, content: &[u8]) {
        if let Some(rotator) = &mut self.rotator {
            rotator.headers.feed(content);
        }
    }

    /// Starts to decide about a file that has content with these headers.
    pub(super) fn restart_rotation(&mut self, headers: HeaderCopy) {
        if let Some(rotator) = &mut self.rotator {
            rotator.restart(headers);
        }
    }

    fn part(&self) -> io::Result<Arc<StreamPart>> {
        match &self.state {
            WriterState::Writing(part) => Ok(Arc::clone(part)),
            WriterState::Comparing(_) | WriterState::Ended => Err(io::Error::other("the stream has ended")),
        }
    }

    /// Queues bytes for a part.
    fn accept(&self, part: &Arc<StreamPart>, content: &[u8]) -> io::Result<()> {
        for chunk in content.chunks(BufferSize::Large.bytes()) {
            let is_small = chunk.len() <= BufferSize::Small.bytes();
            let mut buffer =
                self.shared.pool.take(if is_small { BufferSize::Small } else { BufferSize::Large });
            buffer[..chunk.len()].copy_from_slice(chunk);
            self.shared.queue.accept_bytes(part, buffer, chunk.len())?;
        }
        Ok(())
    }

    /// Ends the part, whose last bytes are queued, and starts the next one.
    fn start_next_part(&mut self, last: &Arc<StreamPart>, headers: &[u8]) -> io::Result<Arc<StreamPart>> {
        let (received, packets) = {
            let aligner = last.aligner();
            (aligner.tracker().received(), aligner.tracker().packets())
        };
        if last.is_broken() {
            return Err(io::Error::other("the file cannot be written"));
        }
        let part = self.create_next_part(last, received, headers.len() as u64)?;
        if let Err(error) = self.accept(&part, headers) {
            self.shared.queue.unregister_part(&part);
            return Err(error);
        }
        log::info!("stream_rotated file={} of={} at={received}", part.file, last.file);
        self.shared.metrics.parts_rotated_total.inc();
        self.state = WriterState::Writing(Arc::clone(&part));
        self.end_writing(Arc::clone(last), EndReason::Rotated);
        let damage = self.close_part(Arc::clone(last), None);
        self.rotated.damage.extend(damage);
        self.rotated.packets += packets;
        self.is_resend = false;
        self.first_byte_ms = self.last_byte_ms;
        if let Some(rotator) = &mut self.rotator {
            rotator.mark_rotated();
        }
        Ok(part)
    }

    /// Creates the part that continues `last` at its end.
    fn create_next_part(
        &self,
        last: &StreamPart,
        received: u64,
        header_bytes: u64,
    ) -> io::Result<Arc<StreamPart>> {
        let name_lock = self.name_lock()?;
        let (file, number) = self.shared.disk_retry.retry("create", "-", || {
            stored_parts::create_file(&self.shared, name_lock, self.origin.source)
        })?;
        let before = last.manifest().rotation.unwrap_or(Rotation { header_bytes: 0, stream_offset: 0 });
        let own_bytes = received.saturating_sub(before.header_bytes);
        let stream_offset = before.stream_offset.saturating_add(own_bytes);
        let mut manifest = Manifest::new(name_lock.name(), file, number, self.origin.source);
        manifest.continues = Some(PartPosition { file: last.file.clone(), at: received });
        manifest.rotation = Some(Rotation { header_bytes, stream_offset });
        manifest.add_connection(self.new_connection(header_bytes));
        self.open_part(PacketAligner::new(self.shared.hash), manifest)
    }
}
