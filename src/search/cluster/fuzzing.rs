//! Entry points for fuzzing: the parsers of what a cluster answers and of what a start finds in the spool. Not used otherwise.

use super::bulk;
use super::event::SpooledEvent;
use super::response::ParsedSearch;
use super::spool::segment::{HEADER_BYTES, SegmentHeader, append_record, find_record, parse_record};

/// Reads an answer as that of a search and as that of a bulk of `items` items. Returns the number of hits and of results.
pub fn read_answer(answer: &[u8], items: usize) -> (Option<usize>, Option<usize>) {
    let hits = serde_json::from_slice::<ParsedSearch<'_>>(answer).ok().and_then(|parsed| {
        parsed.check_complete().ok()?;
        Some(parsed.into_result().hits.len())
    });
    let results = bulk::parse_results(answer, items).map(|results| results.len());
    let _ = bulk::has_errors(answer);
    (hits, results)
}

/// Reads the records of a segment, also after damage. Returns the number of records, and the offset after each.
pub fn read_segment(segment: &[u8]) -> (usize, Vec<usize>) {
    let Some(header) = SegmentHeader::parse(segment) else { return (0, Vec::new()) };
    assert_eq!(header.to_bytes(), segment[..HEADER_BYTES], "a header is written as it was read");
    let (mut at, mut ends) = (HEADER_BYTES, Vec::new());
    let mut next = header.first;
    loop {
        let numbers = next..next.saturating_add(segment.len() as u64);
        let record = parse_record(segment, at).or_else(|| find_record(segment, at, numbers));
        let Some(record) = record else { break };
        assert!(record.start >= at && record.end > record.start && record.end <= segment.len());
        let mut again = Vec::new();
        append_record(&mut again, record.number, record.payload);
        assert_eq!(again, segment[record.start..record.end], "a record is written as it was read");
        if let Some(event) = SpooledEvent::decode(record.payload) {
            let mut encoded = Vec::new();
            event.encode(&mut encoded);
            let decoded = SpooledEvent::decode(&encoded).expect("an encoded event can be decoded");
            assert_eq!((decoded.name, decoded.source), (event.name, event.source));
        }
        (at, next) = (record.end, record.number.saturating_add(1));
        ends.push(record.end);
    }
    (ends.len(), ends)
}

/// Returns a segment with these payloads, for seeds.
pub fn write_segment(payloads: &[&[u8]]) -> Vec<u8> {
    let mut segment = SegmentHeader { log: 7, base: 0, first: 3 }.to_bytes().to_vec();
    for (number, payload) in (3..).zip(payloads) {
        append_record(&mut segment, number, payload);
    }
    segment
}
