//! The hasher thread: hashes the bytes of records on their way to the writer.
//!
//! One thread brings the records of all streams. Reading and decoding them is work for one core, hashing them for
//! another. Jobs stay in order; a stream's hash has all bytes of the jobs that were passed on.

use crossbeam_channel::{Receiver, Sender};

use super::writer::Job;

/// Works until the last sender of jobs is gone, or the writer.
pub fn run(jobs: Receiver<Job>, writer: Sender<Job>) {
    for job in jobs {
        match &job {
            Job::Write { part, body: Some((buffer, _)), hashed, .. } => part.hash(&buffer[..*hashed]),
            Job::Write { .. } | Job::Checkpoint(_) => {}
            Job::Close(ended) => ended.part.note_hash(),
            Job::Hashed(done) => {
                // Who does not wait any more has an error of its own.
                let _ = done.try_send(());
                continue;
            }
        }
        // The writer's own error is the one reported.
        if writer.send(job).is_err() {
            return;
        }
    }
}
