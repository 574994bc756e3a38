//! Analyses a capture file: reads its packets through the engine, from where an earlier analysis ended.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::capture_file::{CaptureFile, RecordReader};
use super::engine::{CaptureName, Engine};
use super::index;
use super::packet::CounterKind;
use super::view::{Call, MediaStream};
use crate::capture::formats;
use crate::capture::reader::ReadAt;

/// Bytes between reports of progress.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Result of an analysis.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// In the order of their starts.
    pub calls: Vec<Call>,
    /// RTP streams that belong to no call.
    pub unbound: Vec<MediaStream>,
    /// Reads packets of the capture again.
    pub reader: RecordReader,
    /// What could not be read, and what a limit cut off, in sentences.
    pub problems: Vec<String>,
}

/// Analysis that goes on when its capture grows. An index stores it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CaptureAnalyser {
    engine: Engine,
    reader: RecordReader,
    /// Calls that are complete.
    complete: Vec<Call>,
    /// End of the last packet.
    pub(super) covered: u64,
}

/// Analyses a capture, from where the analysis in the index file ended. `None`: it is not a capture.
///
/// # Errors
/// A read error, or a compressed capture.
pub(crate) fn analyse(
    file: &mut CaptureFile,
    name: CaptureName<'_>,
    index: Option<&Path>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Option<Analysis>> {
    let known = index.and_then(|index| index::load(index, file));
    let Some(mut analyser) = known.map_or_else(|| CaptureAnalyser::open(file), |known| Ok(Some(known)))?
    else {
        return Ok(None);
    };
    let covered = analyser.covered;
    progress(covered);
    analyser.read(file, name, progress)?;
    if let Some(index) = index.filter(|_| analyser.covered > covered) {
        // The index saves time, and nothing depends on it.
        if let Err(error) = index::store(index, file, &analyser) {
            log::debug!("call_index_not_written file={:?} error={error:?}", index.display().to_string());
        }
    }
    let (sip, media) = (analyser.engine.sip_totals(), analyser.engine.media_counters());
    let rtcp = analyser.engine.rtcp_counters();
    log::debug!(
        "capture_analysed file={:?} bytes={} from={covered} sip_messages={} rtp_packets={} rtcp_packets={} \
         rtcp_encrypted={} rtcp_malformed={} sip_malformed={}",
        name.capture,
        analyser.covered,
        sip.counts.total(),
        media.rtp_packets,
        rtcp.packets,
        rtcp.encrypted,
        rtcp.malformed,
        analyser.engine.malformed_messages()
    );
    Ok(Some(analyser.finish(name)))
}

impl CaptureAnalyser {
    /// Starts the analysis of a capture. `None`: it is not one.
    pub(crate) fn open(file: &mut CaptureFile) -> io::Result<Option<CaptureAnalyser>> {
        if formats::is_compressed(file.read_at(0, formats::DECISION_BYTES_MAX)?) {
            let reason = "the capture is compressed: decompress it first";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let bytes = file.bytes()?;
        let Some(reader) = RecordReader::open(file, bytes)? else { return Ok(None) };
        Ok(Some(CaptureAnalyser { engine: Engine::default(), reader, complete: Vec::new(), covered: 0 }))
    }

    /// Returns false for a deserialized analysis that no input leads to, as far as continuing with it could do harm.
    pub(super) fn is_consistent(&self) -> bool {
        self.reader.is_consistent()
    }

    /// Reads the packets that the file has now.
    pub(crate) fn read(
        &mut self,
        file: &mut CaptureFile,
        name: CaptureName<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        self.reader.set_end(file.bytes()?);
        let mut reported = self.covered;
        while let Some(record) = self.reader.next(file)? {
            if let Some(data) = record.data {
                self.engine.add(record.place, data.link_type, data.bytes(record.bytes));
                self.engine.take_complete(name, &mut |call| self.complete.push(call));
            }
            self.covered = record.end();
            if self.covered - reported >= PROGRESS_BYTES {
                progress(self.covered - reported);
                reported = self.covered;
            }
        }
        progress(self.covered - reported);
        Ok(())
    }

    fn finish(mut self, name: CaptureName<'_>) -> Analysis {
        self.engine.finish();
        let problems = self.problems();
        let (open, unbound) = self.engine.open(name);
        let mut calls = self.complete;
        calls.extend(open);
        calls.sort_by_key(|call| call.start_ns);
        Analysis { calls, unbound, reader: self.reader, problems }
    }

    /// What could not be read, and what a limit cut off, in sentences.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.reader.is_malformed() {
            problems.push(format!(
                "the capture is malformed after byte {}: nothing after it was read",
                self.covered
            ));
        }
        let packets = self.engine.packet_counters();
        let limits = packets.rows().into_iter().filter(|row| row.1 == CounterKind::Limit);
        let (sip, media) = (self.engine.sip_totals(), self.engine.media_counters());
        let others = [
            ("Calls that were ended early because there are too many.", sip.cut),
            ("Messages whose Call-ID or tag is too long.", sip.ids_too_long),
            ("Messages with more header fields than are read.", sip.messages_cut),
            ("Session descriptions with more lines than are read.", sip.sdps_cut),
            ("RTP streams that were ended early because there are too many.", media.streams_over_limit),
            ("Endpoints of session descriptions over the limit.", media.endpoints_over_limit),
            ("Losses that were not compared with those of other streams.", self.engine.omitted_gaps()),
        ];
        let counts = limits.map(|(_, _, text, count)| (text, count)).chain(others);
        problems
            .extend(counts.filter(|(_, count)| *count > 0).map(|(text, count)| format!("{count}: {text}")));
        problems
    }
}
