//! Properties that must hold for any input. The fuzz targets call these functions, and so does `cargo test`
//! with testdata/fuzz.

use std::io::BufReader;

use lea::billing::{
    BilledCall, BillingRow, CallBuilder, RowFields, RowTimeParser, compare_calls, decode_row, encode_row,
};
use lea::capture::formats::{CaptureFormat, starts_capture};
use lea::capture::summary::CaptureSummary;
use lea::capture::tracker::PacketTracker;
use lea::cc::kafka_dump::format::{DumpFormat, DumpItem, DumpLocation, DumpReader};
use lea::cc::wire::chunk::{ChunkError, parse};
use lea::cc::wire::handshake::{NameParse, Trigger, parse_name};
use lea::cc::wire::name::{decode_file_name, file_name, parse_fields, parse_part_file_name, part_file_name};
use lea::iri::event::{self, EventIndices};
use lea::iri::ingest::amqp::frame;
use lea::iri::ingest::framing::{Framer, Framing, FramingStep};
use lea::iri::ingest::syslog::header;

/// The result does not depend on segments, and a decision is final.
pub(super) fn handshake(input: &[u8]) {
    let all = parse_name(input, Trigger::BytesReceived);
    // Each prefix costs a scan, so of a long input only the last prefixes are tested, where it becomes too
    // long.
    let prefixes = if input.len() <= 600 { input.len() } else { 16 };
    let mut decided = NameParse::Incomplete;
    for end in input.len() - prefixes..=input.len() {
        let verdict = parse_name(&input[..end], Trigger::BytesReceived);
        assert!(decided == NameParse::Incomplete || decided == verdict, "{decided:?}, then {verdict:?}");
        decided = verdict;
    }
    assert_eq!(decided, all);
    for event in [Trigger::BytesReceived, Trigger::Silence, Trigger::Closed] {
        match parse_name(input, event) {
            NameParse::Name { name_bytes, content_at } => {
                assert!(name_bytes <= 4096 && name_bytes <= content_at && content_at <= name_bytes + 2);
                assert!(content_at <= input.len());
            }
            NameParse::Incomplete => {
                assert!(event == Trigger::BytesReceived || (event == Trigger::Silence && input.is_empty()))
            }
            NameParse::TooLong => assert!(input.len() > 4096),
            NameParse::Empty => assert!(event == Trigger::Closed && input.is_empty()),
        }
        assert!(all == NameParse::Incomplete || parse_name(input, event) == all);
    }
    let capture = (0..=input.len().min(16)).find_map(|end| starts_capture(&input[..end]));
    assert_eq!(capture, starts_capture(input));
}

/// File names are safe, unique per name, and distinct from parts and manifests.
pub(super) fn name(input: &[u8]) {
    let file = file_name(input);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_.:@,=%~".contains(&byte);
    assert!(!file.is_empty() && file.len() <= 200 && file.bytes().all(allowed), "{file}");
    assert!(!file.starts_with('.') && !file.ends_with(".lea.json"), "{file}");
    match decode_file_name(&file) {
        Some(name) => assert_eq!(name, input),
        None => assert!(file.contains('~'), "{file}"),
    }
    for part in [1, 2, 4711] {
        assert_eq!(parse_part_file_name(&part_file_name(&file, part)), Some((file.as_str(), part)));
    }
    if let Some(found) = parse_fields(input) {
        let again = format!("{}-{}-{}_{}.", found.user_id, found.provider_id, found.service_id, found.start);
        let extension = input.strip_prefix(again.as_bytes()).expect("the fields are those of the name");
        assert!(
            extension.starts_with(b"pcap")
                || extension.starts_with(b"snoop")
                || extension.starts_with(b"erf")
        );
    }
    // Interprets the input as a foreign file name.
    if let Some(name) = std::str::from_utf8(input).ok().and_then(decode_file_name) {
        assert_eq!(file_name(&name).as_bytes(), input);
    }
}

/// The tracker's state does not depend on chunks. The first byte of the input is the chunk size.
pub(super) fn capture(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    let mut single = PacketTracker::new();
    let mut chunked = PacketTracker::new();
    for chunk in stream.chunks(usize::from(*cut) + 1) {
        chunked.feed(chunk);
        for byte in chunk {
            let before = (single.packet_boundary(), single.packets());
            single.feed(std::slice::from_ref(byte));
            assert!(single.packet_boundary() <= single.received());
            // What looked like packets of ERF counts until the third one does not.
            let is_other = single.summary().format == CaptureFormat::Other;
            assert!(before.0 <= single.packet_boundary() && (before.1 <= single.packets() || is_other));
        }
        assert_eq!(state(&chunked), state(&single));
    }
    let mut whole = PacketTracker::new();
    whole.feed(stream);
    assert_eq!(state(&whole), state(&single));
    assert_eq!(whole.received(), stream.len() as u64);

    let (first, second) = stream.split_at(stream.len() / 2);
    let mut stored = PacketTracker::new();
    stored.feed(first);
    // The state of a decompressor cannot be stored: after a restart the file is read again.
    let Ok(text) = serde_json::to_string(&stored) else {
        assert!(stored.summary().compression.is_some());
        return;
    };
    let mut again: PacketTracker = serde_json::from_str(&text).expect("and read again");
    again.feed(second);
    assert_eq!(state(&again), state(&whole));
}

fn state(tracker: &PacketTracker) -> (u64, u64, u64, CaptureSummary) {
    (tracker.received(), tracker.packet_boundary(), tracker.packets(), tracker.summary())
}

/// The parser of record values agrees with `serde_json`.
pub(super) fn chunk(input: &[u8]) {
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(input);
    let fields = serde_json::from_slice(input).ok().and_then(|value| match value {
        serde_json::Value::Object(fields) => Some(fields),
        _ => None,
    });
    let text = |key: &str| fields.as_ref()?.get(key)?.as_str().filter(|text| !text.is_empty());
    let user_id = |key: &str| text(key).map(|user_id| format!("{user_id}.pcap"));
    let names = match text("interceptionfilename") {
        Some(name) => [Some(name.to_owned()), None],
        None => [user_id("userid"), user_id("user_id")],
    };
    let data = fields.as_ref().and_then(|fields| fields.get("data")?.as_str());
    match parse(input) {
        Ok(chunk) => {
            let mut decoded = vec![0; chunk.data.decoded_bytes_max()];
            // Control characters in the data are the only invalid JSON that is detected as late as this.
            // What serializers put around an object is not JSON.
            let is_object = input.trim_ascii_start().first() == Some(&b'{') && !input.ends_with(b"\0");
            assert!(chunk.data.decode(&mut decoded).is_err() || json.is_ok() || !is_object);
            if fields.is_some() {
                assert!(data.is_none_or(|data| data.as_bytes() == chunk.data.text()));
                assert!(names.contains(&Some(chunk.name.into_owned())));
            }
        }
        // If a field occurs twice, the last one counts, in either spelling.
        Err(ChunkError::NoName) => assert!(fields.is_none() || names.contains(&None)),
        Err(ChunkError::Envelope(_)) => assert!(names.contains(&None) || data.is_none()),
        Err(ChunkError::NoData | ChunkError::DataType(_)) => assert_eq!(data, None),
        Err(ChunkError::NotJson(_)) => assert!(fields.is_none()),
        Err(ChunkError::TooLarge { .. } | ChunkError::BadBase64 { .. } | ChunkError::NoValue) => {}
    }
}

/// A dump gives the same records for every split. The first byte of the input is the size of the pieces.
fn dump(format: DumpFormat, input: &[u8]) {
    let Some((cut, dump)) = input.split_first() else { return };
    let whole = read_dump(format, dump, dump.len().max(1));
    assert_eq!(read_dump(format, dump, usize::from(*cut) + 1), whole);
    // The detected format must not matter.
    let found = DumpFormat::detect(dump, true).expect("a whole dump has a format");
    read_dump(found.format, dump, 1000);
}

/// Partition and offset of a record, and its value.
type DumpedRecord = (Option<(i32, i64)>, Option<Vec<u8>>);

/// Records, damage and truncation of a dump.
#[derive(Debug, Default, PartialEq)]
struct Dumped {
    records: Vec<DumpedRecord>,
    damage: Vec<(DumpLocation, String)>,
    cut: bool,
}

fn read_dump(format: DumpFormat, dump: &[u8], step_bytes: usize) -> Dumped {
    let mut reader = DumpReader::new(format, None);
    let (mut start, mut end, mut found) = (0, 0, Dumped::default());
    loop {
        let step = reader.step(&dump[start..end], end == dump.len());
        let consumed = step.consumed;
        assert!(consumed <= end - start);
        match step.item {
            DumpItem::NeedBytes(bytes) => {
                assert!(end < dump.len() && bytes > end - start);
                end = (end + step_bytes).min(dump.len());
                continue;
            }
            DumpItem::End { truncated_bytes: cut_bytes } => {
                assert_eq!(start + consumed, dump.len());
                found.cut = cut_bytes > 0;
                return found;
            }
            DumpItem::Record { position, value, .. } => {
                let position = position.map(|position| (position.partition, position.offset));
                found.records.push((position, value.map(<[u8]>::to_vec)));
            }
            DumpItem::Damaged { reason, first: true, .. } => found.damage.push((step.location, reason)),
            DumpItem::Damaged { .. } | DumpItem::Skip | DumpItem::TransactionEnd { .. } => {}
        }
        start += consumed;
    }
}

pub(super) fn dump_values(input: &[u8]) {
    dump(DumpFormat::Values, input);
}

pub(super) fn dump_kcat(input: &[u8]) {
    dump(DumpFormat::Kcat, input);
}

pub(super) fn dump_console(input: &[u8]) {
    dump(DumpFormat::Console, input);
}

pub(super) fn dump_log_text(input: &[u8]) {
    dump(DumpFormat::LogText, input);
}

pub(super) fn dump_letters(input: &[u8]) {
    dump(DumpFormat::DeadLetters, input);
}

pub(super) fn dump_json(input: &[u8]) {
    dump(DumpFormat::Json, input);
}

pub(super) fn dump_keyed(input: &[u8]) {
    dump(DumpFormat::Keyed, input);
}

/// Reads a segment unchanged, and again with the checksum of its first batch corrected, so that the code
/// after the checksum is reached.
pub(super) fn dump_segment(input: &[u8]) {
    dump(DumpFormat::Segment, input);
    let mut mended = input.to_vec();
    let Some(batch) = mended.get_mut(1..).filter(|batch| batch.len() >= 61) else { return };
    let length = u32::from_be_bytes([batch[8], batch[9], batch[10], batch[11]]) as usize + 12;
    if let Some(checked) = batch.get(21..length) {
        let crc = crc32c(checked);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        dump(DumpFormat::Segment, &mended);
    }
}

/// Bitwise CRC-32C.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// A query string gives a tree or an error with a position inside it, for each default operator. Tokens,
/// dates and date formats are parsed too.
pub(super) fn query_string(input: &[u8]) {
    use lea::search::analysis;
    use lea::search::date::{self, DateFormat, Rounding};
    use lea::search::query::Operator;
    use lea::search::query::query_string::{QueryStringOptions, parse};
    let text = String::from_utf8_lossy(input);
    for operator in [Operator::Or, Operator::And] {
        match parse(&text, &QueryStringOptions { operator, ..QueryStringOptions::default() }) {
            Ok(query) => assert!(!query.to_string().is_empty()),
            Err(error) => assert!(error.position.is_some_and(|at| at <= text.chars().count()), "{error}"),
        }
    }
    for token in analysis::tokens(&text) {
        assert!(!token.is_empty() && token.encode_utf16().count() <= analysis::TOKEN_UNITS_MAX, "{token}");
        assert_eq!(analysis::to_lowercase(&token), token);
    }
    let instant =
        |rounding| date::parse_instant(&text, &DateFormat::default(), 1_795_342_272_345, 60, rounding);
    if let (Ok(first), Ok(last)) = (instant(Rounding::Down), instant(Rounding::Up)) {
        assert!(first <= last || text.contains('/'), "{text}");
    }
    if let Ok(format) = DateFormat::parse(&text) {
        let _ = format.parse_date(&text, 0, Rounding::Up);
    }
    let _ = (date::parse_since(&text, 0), date::parse_zone_minutes(&text));
}

/// Any request body that `_count` accepts is accepted by `_search`, with the same query.
pub(super) fn search_body(input: &[u8]) {
    use lea::search::query::search_request::{WINDOW_MAX, parse_count, parse_search};
    let found = parse_search([], input);
    if let Ok(search) = &found {
        assert!(search.from + search.size <= WINDOW_MAX);
    }
    if let Ok(query) = parse_count([], input) {
        assert_eq!(found.map(|search| search.query.to_string()), Ok(query.to_string()));
    }
}

/// Messages do not depend on how the input is split, and all their headers can be parsed.
pub(super) fn syslog(input: &[u8]) {
    let arrived = chrono::DateTime::from_timestamp(1_795_294_781, 0).unwrap();
    for framing in [Framing::Lines, Framing::Syslog] {
        let whole = messages(framing, input, &[]);
        let step = 1 + input.len() / 64;
        for cut in (0..=input.len()).step_by(step) {
            assert_eq!(messages(framing, input, &[cut]), whole, "cut at {cut}");
        }
        let all: Vec<usize> = (0..=input.len().min(4096)).collect();
        assert_eq!(messages(framing, input, &all), whole, "byte by byte");
        for message in whole.into_iter().flatten() {
            let text = String::from_utf8_lossy(&message);
            let header = header::parse(&text, &arrived);
            assert!(text.ends_with(header.text));
            assert!(header.priority.is_none_or(|priority| priority < 192));
            let line = header.to_pattern_line(&arrived);
            assert!(line.ends_with(header.text));
        }
    }
}

/// Splits the input into messages. `None` stands for one that was too long.
fn messages(framing: Framing, input: &[u8], cuts: &[usize]) -> Vec<Option<Vec<u8>>> {
    let mut framer = Framer::new(framing, 1024);
    let (mut found, mut from) = (Vec::new(), 0);
    for (to, ended) in cuts.iter().map(|cut| (*cut, false)).chain([(input.len(), true)]) {
        loop {
            let (step, consumed) = framer.step(&input[from..to], ended);
            from += consumed;
            match step {
                FramingStep::NeedMore => break,
                FramingStep::Message(message) => found.push(Some(message.to_vec())),
                FramingStep::TooLong(_) => found.push(None),
            }
        }
    }
    assert_eq!(from, input.len());
    found
}

/// A line becomes an event whose source is a JSON object, or content, or an error.
pub(super) fn lines(input: &[u8]) {
    let indices = EventIndices::default();
    for line in input.split(|byte| *byte == b'\n') {
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
        match event::classify(line, &indices, &chrono::Utc) {
            Ok(event::ClassifiedLine::Event(document)) => {
                let source: Result<serde_json::Map<String, serde_json::Value>, _> =
                    serde_json::from_slice(&document.source);
                // The store rejects numbers that are too large and nesting that is too deep, not the parser.
                assert!(source.is_ok() || !is_object, "{}", String::from_utf8_lossy(&document.source));
            }
            Ok(event::ClassifiedLine::StreamContent) => {}
            Err(_) => assert!(!is_object),
        }
    }
}

/// Rows of a billing log: encoding is reversible, encoded rows sort by call and time, and any rows can be
/// combined into calls.
pub(super) fn billing(input: &[u8]) {
    let clock = RowTimeParser::utc();
    let mut records = Vec::new();
    for (line, sequence) in input.split(|byte| *byte == b'\n').zip(0..) {
        // As a record of a temporary file, the line is a row or damaged.
        let _ = decode_row(line);
        let Some(row) = RowFields::from_json(line)
            .and_then(|fields| BillingRow::from_fields(fields, &clock, sequence))
            .ok()
            .flatten()
        else {
            continue;
        };
        let mut record = Vec::new();
        encode_row(&row, &mut record);
        assert_eq!(decode_row(&record).as_ref(), Ok(&row));
        records.push(record);
    }
    records.sort_unstable();
    let rows: Vec<BillingRow<'_>> = records.iter().map(|record| decode_row(record).unwrap()).collect();
    assert!(rows.is_sorted_by_key(|row| (row.call_id.as_bytes(), row.time_us)));
    let mut calls: Vec<BilledCall> = Vec::new();
    for rows in rows.chunk_by(|a, b| a.call_id == b.call_id) {
        let mut builder = CallBuilder::new(&rows[0]);
        for row in rows {
            assert!(builder.is_same_call(row));
            builder.add(row);
        }
        calls.push(builder.finish(|a, b| a == b));
    }
    for call in &calls {
        assert!(compare_calls(Some(call), Some(call), 0).is_empty());
        assert!(!compare_calls(Some(call), None, 0).is_empty());
    }
}

/// Frames of an AMQP broker: a frame is parsed once it is complete, independently of what follows it, and an
/// invalid frame is rejected as soon as possible.
pub(super) fn amqp(input: &[u8]) {
    const LARGEST: u32 = 4_096;
    let mut rest = input;
    while !rest.is_empty() {
        let all = frame::parse_frame(rest, LARGEST);
        let prefixes = rest.len().min(64);
        for end in (0..prefixes).chain(rest.len() - prefixes..rest.len()) {
            let part = frame::parse_frame(&rest[..end], LARGEST);
            assert!(part == Ok(None) || part == all, "{end}: {part:?}, then {all:?}");
        }
        let Ok(Some((_, bytes))) = all else { break };
        assert!((frame::FRAME_OVERHEAD_BYTES..=LARGEST as usize).contains(&bytes) && bytes <= rest.len());
        rest = &rest[bytes..];
    }
}

/// Any request gets a response, whatever its path, parameters and body. The first line of the input is method
/// and target, the rest is the body.
pub(super) fn elastic_request(input: &[u8]) {
    use std::sync::{Arc, LazyLock};

    use lea::es_api::EsApi;
    use lea::http::Handler;
    use lea::http::basic_auth::Users;
    use lea::http::{ParseStep, RequestLimits, RequestParser};
    use lea::phone::{NumberSettings, PhoneNumberNormalizer};
    use lea::search::sqlite::{SqliteStore, StoreConfig};

    static ELASTIC: LazyLock<EsApi> = LazyLock::new(|| {
        let dir = Box::leak(Box::new(tempfile::tempdir().expect("a directory")));
        let store = SqliteStore::open(dir.path(), StoreConfig::default()).expect("a store");
        let families = PhoneNumberNormalizer::new(NumberSettings::default()).expect("the settings are good");
        EsApi::new(Arc::new(store), Some(Arc::new(families)), Users::allow_all(), Arc::default())
    });
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (line, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let head = format!(
        " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [line, head.as_bytes(), body].concat();
    let mut parser = RequestParser::new(RequestLimits::default());
    let (mut rest, mut refused) = (&request[..], None);
    loop {
        let (used, step) = parser.feed(rest);
        rest = &rest[used..];
        match step {
            ParseStep::Head => refused = ELASTIC.reject_early(parser.request()),
            ParseStep::Request => break,
            ParseStep::NeedMore | ParseStep::Invalid(_) => return,
        }
    }
    let response = refused.unwrap_or_else(|| ELASTIC.handle(parser.request()));
    assert!((200..=503).contains(&response.status), "{}", response.status);
    if response.content_type.starts_with("application/json") {
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&response.body);
        assert!(json.is_ok(), "{}", String::from_utf8_lossy(&response.body));
    }
}

/// HTTP requests and errors do not depend on how the input is split.
pub(super) fn http(input: &[u8]) {
    let whole = requests(std::iter::once(input));
    for segment_bytes in [1, 2, 7, 64] {
        assert_eq!(requests(input.chunks(segment_bytes)), whole, "{segment_bytes} bytes at once");
    }
}

/// Formats the parser's results for these segments, one text per request or error.
fn requests<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    use lea::http::{ParseStep, RequestLimits, RequestParser};
    let mut parser = RequestParser::new(RequestLimits { body_bytes_max: 4096, ..RequestLimits::default() });
    let mut seen = Vec::new();
    for mut rest in segments {
        loop {
            let (used, step) = parser.feed(rest);
            rest = &rest[used..];
            match step {
                ParseStep::NeedMore => break,
                ParseStep::Head => {}
                ParseStep::Request => {
                    let request = parser.request();
                    let pairs: Vec<_> = request.query_pairs().collect();
                    let headers: Vec<_> = request.headers().collect();
                    let (method, path, body) = (request.method(), request.path(), request.body());
                    seen.push(format!("{method:?} {path} {pairs:?} {headers:?} {body:?}"));
                    parser.next_request();
                }
                ParseStep::Invalid(refusal) => {
                    seen.push(format!("{refusal:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

/// Reads at most `step_bytes` bytes at once.
struct Pieces<'a> {
    rest: &'a [u8],
    step_bytes: usize,
}

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (piece, rest) = self.rest.split_at(buffer.len().min(self.step_bytes).min(self.rest.len()));
        buffer[..piece.len()].copy_from_slice(piece);
        self.rest = rest;
        Ok(piece.len())
    }
}

/// Calls `read` with the input in pieces of several sizes, and with all of it. The results must be equal.
fn same_in_pieces<T: PartialEq + std::fmt::Debug>(input: &[u8], read: impl Fn(Pieces<'_>) -> T) -> T {
    let whole = read(Pieces { rest: input, step_bytes: usize::MAX });
    for step_bytes in [1, 2, 3, 64, 1000] {
        let found = read(Pieces { rest: input, step_bytes });
        assert!(found == whole, "{step_bytes} bytes at once: {found:?}, and not {whole:?}");
    }
    whole
}

/// A journal gives the same open files in pieces, and is the same after it is rewritten. A part of it, as after a crash,
/// can be read, too.
pub(super) fn journal(input: &[u8]) {
    use lea::cc::vault::fuzzing::read_journal;
    let read = |from: Pieces<'_>| {
        let step_bytes = from.step_bytes.min(1 << 16);
        read_journal(BufReader::with_capacity(step_bytes, from)).map_err(|error| error.to_string())
    };
    let Ok((open, rewritten)) = same_in_pieces(input, read) else { return };
    assert_eq!(read_journal(&rewritten[..]).expect("it was just written"), (open, rewritten));
    let (start, _) = input.split_at(input.len() / 2);
    let _ = read_journal(start);
}

/// A checkpoint log gives the same state in pieces, and is the same after it is rewritten as one batch.
pub(super) fn checkpoints(input: &[u8]) {
    use lea::cc::vault::fuzzing::read_checkpoints;
    let read = |from: Pieces<'_>| {
        let step_bytes = from.step_bytes.min(1 << 16);
        read_checkpoints(BufReader::with_capacity(step_bytes, from)).map_err(|error| error.to_string())
    };
    let Ok(rewritten) = same_in_pieces(input, read) else { return };
    assert_eq!(read_checkpoints(&rewritten[..]).expect("it was just written"), rewritten);
    // What a crash cut off does not change the batches before it.
    let (start, _) = input.split_at(input.len() / 2);
    let _ = read_checkpoints(start);
}

/// A manifest gives the same contents in pieces, and after it is written again. The resume state in it is rejected, or a
/// stream can go on from it.
pub(super) fn manifest(input: &[u8]) {
    use lea::cc::vault::fuzzing::continue_resume_state;
    use lea::cc::vault::manifest::{self, Manifest};
    let read = |from: Pieces<'_>| manifest::parse(from).map_err(|error| error.to_string());
    let Ok(found) = same_in_pieces(input, read) else { return };
    let text = serde_json::to_vec_pretty(&found).expect("a manifest can be written");
    let again: Manifest = manifest::parse(&text[..]).expect("and read again");
    assert_eq!(again, found);
    if let Some(state) = &found.resume_state {
        let more = b"\x01\x02\x03\x04 the next bytes of the stream";
        if let Some(state) = continue_resume_state(state, found.bytes, more) {
            let received = found.bytes + more.len() as u64;
            assert!(continue_resume_state(&state, received, b"").is_some(), "its own state is rejected");
        }
    }
}

/// The parts of a damaged capture cover it in order, and its packets can be found again. A reader that reads headers only
/// finds the packets that the tracker counts.
pub(super) fn mend(input: &[u8]) {
    use lea::capture::mend::{SourcePart, find_parts};
    // Each byte may be tried as the start of a packet.
    let input = &input[..input.len().min(8 << 10)];
    let (mut at, mut packets, mut captures) = (0, Vec::new(), Vec::new());
    let mut source = input;
    let found = find_parts(&mut source, input.len() as u64, &mut |part| {
        let range = match part {
            SourcePart::Capture { at: start, .. } => {
                captures.push(start);
                start..start
            }
            SourcePart::Header(range) | SourcePart::Damaged { range, .. } => range,
            SourcePart::Packet(packet) => {
                packets.push(packet.start..packet.end);
                packet.start..packet.end
            }
        };
        assert!(range.start == at && range.end >= at, "{range:?} after {at}");
        at = range.end;
        Ok(())
    });
    found.expect("reading from memory cannot fail");
    assert_eq!(at, input.len() as u64);
    assert!(packets.is_empty() || !captures.is_empty());
    // What the tracker counts in a capture without damage is what was found.
    let mut tracker = PacketTracker::new();
    tracker.feed(input);
    let summary = tracker.summary();
    let is_whole = summary.malformed_at.is_none() && summary.truncated_bytes == 0;
    if is_whole && captures == [0] && starts_capture(input) == Some(true) {
        assert!(packets.len() as u64 <= summary.packets, "{} of {}", packets.len(), summary.packets);
    }
}

/// The objects of a JSON array are the same in pieces, and those that `serde_json` finds.
pub(super) fn json_array(input: &[u8]) {
    use lea::billing::split_objects;
    const BYTES_MAX: usize = 1000;
    let read = |from: Pieces<'_>| {
        let step_bytes = from.step_bytes.min(1 << 16);
        split_objects(BufReader::with_capacity(step_bytes, from), BYTES_MAX).expect("memory can be read")
    };
    let (objects, is_cut) = same_in_pieces(input, read);
    for object in objects.iter().flatten() {
        assert!(object.starts_with(b"{") && object.ends_with(b"}") && object.len() <= BYTES_MAX);
    }
    let json: Result<Vec<serde_json::Map<String, serde_json::Value>>, _> = serde_json::from_slice(input);
    if let Ok(expected) = json {
        assert!(!is_cut && objects.len() == expected.len());
        for (object, expected) in objects.iter().zip(expected) {
            let found = object.as_ref().map(|object| serde_json::from_slice(object).expect("an object"));
            assert!(found.is_none_or(|found: serde_json::Map<String, serde_json::Value>| found == expected));
        }
    }
}

/// An answer of a cluster is read or refused.
pub(super) fn cluster_answer(input: &[u8]) {
    for items in [1, 2] {
        let (_, results) = lea::search::cluster::fuzzing::read_answer(input, items);
        assert!(results.is_none_or(|results| results == items));
    }
}

/// Damage in a spool segment costs the damaged records only.
pub(super) fn spool_segment(input: &[u8]) {
    use lea::search::cluster::fuzzing::{read_segment, write_segment};
    let (_, ends) = read_segment(input);
    assert!(ends.is_sorted());
    // The input as payloads: all of them are found, and all but one after a byte has changed.
    let (first, second) = input.split_at(input.len() / 2);
    let mut segment = write_segment(&[first, second, b"last"]);
    let (records, ends) = read_segment(&segment);
    assert_eq!(records, 3);
    let damaged_at = (ends[0] + ends[1]) / 2;
    segment[damaged_at] ^= 1;
    assert!(read_segment(&segment).0 >= 2);
}

/// A configuration is read without a panic, and a change leaves everything else as it is.
pub(super) fn config(input: &[u8]) {
    use lea::config::FileLayer;
    use lea::config::edit::{Change, apply};
    let layer = FileLayer::parse(std::path::Path::new("lea.conf"), input);
    let Ok(text) = std::str::from_utf8(input) else { return assert!(!layer.errors.is_empty()) };
    let change = Change::parse("events.http=9200").expect("the change is valid");
    if let Ok(changed) = apply(text, std::slice::from_ref(&change)) {
        assert_eq!(apply(&changed, &[change]).as_ref(), Ok(&changed), "a second change changes nothing");
    }
}

/// The chunks of a GELF message, in pieces given by the first byte, make the message.
pub(super) fn gelf(input: &[u8]) {
    use lea::iri::ingest::gelf::{MESSAGE_BYTES_MAX, decompress, to_document};
    let arrived = chrono::DateTime::from_timestamp(0, 0).expect("it is in range");
    if let Ok(plain) = decompress(input) {
        assert!(plain.len() <= MESSAGE_BYTES_MAX.max(input.len()));
        if let Ok(document) = to_document(&plain, "192.0.2.1", &arrived, "syslog") {
            let source: serde_json::Value = serde_json::from_slice(&document.source).expect("it is JSON");
            assert!(source["@timestamp"].is_string() && source["host"] == "192.0.2.1");
        }
    }
}

/// Any bytes are a segment or damage, and a segment has no more documents than its span says.
pub(super) fn store_segment(input: &[u8]) {
    use lea::search::sqlite::inspect_segment;
    let Some((&span, data)) = input.split_first() else { return };
    if let Some(content) = inspect_segment(u32::from(span), data) {
        assert!(content.postings <= content.entries * u64::from(span), "{content:?}");
        assert!(
            content.entries <= data.len() as u64 && content.positions <= data.len() as u64,
            "{content:?}"
        );
    }
}
