//! Thread `hasher`: hashes the records of Kafka streams on their way to the writer.
//!
//! One thread reads and decodes the records of all streams, which keeps one core busy, so hashing runs in
//! another thread. Jobs keep their order: a stream's hash always covers exactly the bytes that were
//! forwarded.

use crossbeam_channel::{Receiver, Sender};

use super::writer::WriteJob;

/// Runs until all senders of jobs or the writer have ended.
pub(super) fn run(jobs: Receiver<WriteJob>, writer: Sender<WriteJob>) {
    for job in jobs {
        match &job {
            WriteJob::Write { part, body: Some((buffer, _)), hashed, .. } => part.hash(&buffer[..*hashed]),
            WriteJob::Write { .. } | WriteJob::Checkpoint(_) => {}
            WriteJob::Close(ended) => ended.part.add_hash_to_manifest(),
            WriteJob::HashBarrier(done) => {
                // A caller that stopped waiting has failed for another reason.
                let _ = done.try_send(());
                continue;
            }
        }
        // The writer reports its own error.
        if writer.send(job).is_err() {
            return;
        }
    }
}
