//! What must hold for any input. The fuzz targets call these, and so does `cargo test` on testdata/fuzz.

use lea::cc::frame::capture::{Follower, Summary};
use lea::cc::frame::chunk::{Refused, parse};
use lea::cc::frame::dump::{Format, Place, Reader, What};
use lea::cc::frame::handshake::{Event, Verdict, decide, starts_capture};
use lea::cc::frame::name::{fields, file_name, name_of, part_file_name, part_of};
use lea::iri::billing::{Builder, Call, Clock, Fields, Row, compare, decode, encode};
use lea::iri::event::{self, Indices};
use lea::iri::source::amqp::frame;
use lea::iri::source::frame::{Framer, Framing, Step};
use lea::iri::source::syslog::header;

/// The verdict does not depend on segments, and what is decided stays decided.
pub fn handshake(input: &[u8]) {
    let all = decide(input, Event::Data);
    // Each prefix costs a scan, so of a long input only the last ones: there it gets too long.
    let prefixes = if input.len() <= 600 { input.len() } else { 16 };
    let mut decided = Verdict::More;
    for end in input.len() - prefixes..=input.len() {
        let verdict = decide(&input[..end], Event::Data);
        assert!(decided == Verdict::More || decided == verdict, "{decided:?}, then {verdict:?}");
        decided = verdict;
    }
    assert_eq!(decided, all);
    for event in [Event::Data, Event::Gap, Event::End] {
        match decide(input, event) {
            Verdict::Name { name_bytes, content_at } => {
                assert!(name_bytes <= 4096 && name_bytes <= content_at && content_at <= name_bytes + 2);
                assert!(content_at <= input.len());
            }
            Verdict::More => assert!(event == Event::Data || (event == Event::Gap && input.is_empty())),
            Verdict::TooLong => assert!(input.len() > 4096),
            Verdict::Nothing => assert!(event == Event::End && input.is_empty()),
        }
        assert!(all == Verdict::More || decide(input, event) == all);
    }
    let capture = (0..=input.len().min(16)).find_map(|end| starts_capture(&input[..end]));
    assert_eq!(capture, starts_capture(input));
}

/// File names are safe, have one name each, and are told from parts and manifests.
pub fn name(input: &[u8]) {
    let file = file_name(input);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_.:@,=%~".contains(&byte);
    assert!(!file.is_empty() && file.len() <= 200 && file.bytes().all(allowed), "{file}");
    assert!(!file.starts_with('.') && !file.ends_with(".lea.json"), "{file}");
    match name_of(&file) {
        Some(name) => assert_eq!(name, input),
        None => assert!(file.contains('~'), "{file}"),
    }
    for part in [1, 2, 4711] {
        assert_eq!(part_of(&part_file_name(&file, part)), Some((file.as_str(), part)));
    }
    if let Some(found) = fields(input) {
        let again =
            format!("{}-{}-{}_{}.pcap", found.user_id, found.provider_id, found.service_id, found.start);
        assert!(input == again.as_bytes() || input == format!("{again}ng").as_bytes());
    }
    // The input as a file name that somebody else made.
    if let Some(name) = std::str::from_utf8(input).ok().and_then(name_of) {
        assert_eq!(file_name(&name).as_bytes(), input);
    }
}

/// What a follower tells does not depend on chunks. The first byte says how the rest is cut.
pub fn capture(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    let mut single = Follower::new();
    let mut chunked = Follower::new();
    for chunk in stream.chunks(usize::from(*cut) + 1) {
        chunked.feed(chunk);
        for byte in chunk {
            let before = (single.boundary(), single.packets());
            single.feed(std::slice::from_ref(byte));
            assert!(single.boundary() <= single.received());
            assert!(before.0 <= single.boundary() && before.1 <= single.packets());
        }
        assert_eq!(told(&chunked), told(&single));
    }
    let mut whole = Follower::new();
    whole.feed(stream);
    assert_eq!(told(&whole), told(&single));
    assert_eq!(whole.received(), stream.len() as u64);

    let (first, second) = stream.split_at(stream.len() / 2);
    let mut stored = Follower::new();
    stored.feed(first);
    let text = serde_json::to_string(&stored).expect("a follower can be stored");
    let mut again: Follower = serde_json::from_str(&text).expect("and read again");
    again.feed(second);
    assert_eq!(told(&again), told(&whole));
}

fn told(follower: &Follower) -> (u64, u64, u64, Summary) {
    (follower.received(), follower.boundary(), follower.packets(), follower.summary())
}

/// A record's value: what `serde_json` reads there is what is taken.
pub fn chunk(input: &[u8]) {
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
            let mut decoded = vec![0; chunk.data.bytes_max()];
            // Of all that is no JSON, control characters in the data alone are found as late as this.
            assert!(chunk.data.decode(&mut decoded).is_err() || json.is_ok());
            if fields.is_some() {
                assert_eq!(data.map(str::as_bytes), Some(chunk.data.base64()));
                assert!(names.contains(&Some(chunk.name.into_owned())));
            }
        }
        // Of a field that comes twice the last one counts, whichever spelling it has.
        Err(Refused::NoName) => assert!(names.contains(&None)),
        Err(Refused::NoData) => assert_eq!(data, None),
        Err(Refused::NoJson(_)) => assert!(fields.is_none()),
        Err(Refused::TooLarge { .. } | Refused::NoBase64 { .. } | Refused::NoValue) => {}
    }
}

/// A dump gives the same records for every split. The first byte says how it is cut.
fn dump(format: Format, input: &[u8]) {
    let Some((cut, dump)) = input.split_first() else { return };
    let whole = read_dump(format, dump, dump.len().max(1));
    assert_eq!(read_dump(format, dump, usize::from(*cut) + 1), whole);
    // Whatever its format is said to be.
    read_dump(Format::tell(dump), dump, 1000);
}

/// A record's partition and offset, and its value.
type DumpedRecord = (Option<(i32, i64)>, Option<Vec<u8>>);

/// Its records, the damage and the bytes that are cut off.
#[derive(Debug, Default, PartialEq)]
struct Dumped {
    records: Vec<DumpedRecord>,
    damage: Vec<(Place, String)>,
    cut: bool,
}

fn read_dump(format: Format, dump: &[u8], step_bytes: usize) -> Dumped {
    let mut reader = Reader::new(format, None);
    let (mut start, mut end, mut found) = (0, 0, Dumped::default());
    loop {
        let step = reader.step(&dump[start..end], end == dump.len());
        let consumed = step.consumed;
        assert!(consumed <= end - start);
        match step.what {
            What::More(bytes) => {
                assert!(end < dump.len() && bytes > end - start);
                end = (end + step_bytes).min(dump.len());
                continue;
            }
            What::End { cut_bytes } => {
                assert_eq!(start + consumed, dump.len());
                found.cut = cut_bytes > 0;
                return found;
            }
            What::Record { position, value, .. } => {
                let position = position.map(|position| (position.partition, position.offset));
                found.records.push((position, value.map(<[u8]>::to_vec)));
            }
            What::Damaged { reason, first: true, .. } => found.damage.push((step.place, reason)),
            What::Damaged { .. } | What::Nothing | What::Aborted { .. } => {}
        }
        start += consumed;
    }
}

pub fn dump_values(input: &[u8]) {
    dump(Format::Values, input);
}

pub fn dump_kcat(input: &[u8]) {
    dump(Format::Kcat, input);
}

pub fn dump_console(input: &[u8]) {
    dump(Format::Console, input);
}

pub fn dump_log_text(input: &[u8]) {
    dump(Format::LogText, input);
}

pub fn dump_letters(input: &[u8]) {
    dump(Format::Letters, input);
}

/// A segment as it is, and with its first batch's checksum put right, so that what is behind it is reached.
pub fn dump_segment(input: &[u8]) {
    dump(Format::Segment, input);
    let mut mended = input.to_vec();
    let Some(batch) = mended.get_mut(1..).filter(|batch| batch.len() >= 61) else { return };
    let length = u32::from_be_bytes([batch[8], batch[9], batch[10], batch[11]]) as usize + 12;
    if let Some(checked) = batch.get(21..length) {
        let crc = crc32c(checked);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        dump(Format::Segment, &mended);
    }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// A query string: a tree or a refusal within it, for each operator; its words, dates and formats too.
pub fn query_string(input: &[u8]) {
    use lea::iri::date::{self, Format, Rounding};
    use lea::iri::query::query_string::{Options, parse};
    use lea::iri::query::{Operator, token};
    let text = String::from_utf8_lossy(input);
    for operator in [Operator::Or, Operator::And] {
        match parse(&text, &Options { operator, ..Options::default() }) {
            Ok(query) => assert!(!query.to_string().is_empty()),
            Err(error) => assert!(error.position.is_some_and(|at| at <= text.chars().count()), "{error}"),
        }
    }
    for token in token::tokens(&text) {
        assert!(!token.is_empty() && token.encode_utf16().count() <= token::TOKEN_UNITS_MAX, "{token}");
        assert_eq!(token::lower(&token), token);
    }
    let instant = |rounding| date::instant(&text, &Format::default(), 1_795_342_272_345, 60, rounding);
    if let (Ok(first), Ok(last)) = (instant(Rounding::Down), instant(Rounding::Up)) {
        assert!(first <= last || text.contains('/'), "{text}");
    }
    if let Ok(format) = Format::parse(&text) {
        let _ = format.read(&text, 0, Rounding::Up);
    }
    let _ = (date::since(&text, 0), date::zone_minutes(&text));
}

/// A search's body: what can be counted can be searched.
pub fn search_body(input: &[u8]) {
    use lea::iri::query::body::{WINDOW_MAX, count, search};
    let found = search([], input);
    if let Ok(search) = &found {
        assert!(search.from + search.size <= WINDOW_MAX);
    }
    if let Ok(query) = count([], input) {
        assert_eq!(found.map(|search| search.query.to_string()), Ok(query.to_string()));
    }
}

/// Messages are the same for every split of the input, and headers of all of them are read.
pub fn syslog(input: &[u8]) {
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
            let line = header.line(&arrived);
            assert!(line.ends_with(header.text));
        }
    }
}

/// Messages; `None` is one that was too long.
fn messages(framing: Framing, input: &[u8], cuts: &[usize]) -> Vec<Option<Vec<u8>>> {
    let mut framer = Framer::new(framing, 1024);
    let (mut found, mut from) = (Vec::new(), 0);
    for (to, ended) in cuts.iter().map(|cut| (*cut, false)).chain([(input.len(), true)]) {
        loop {
            let (step, consumed) = framer.step(&input[from..to], ended);
            from += consumed;
            match step {
                Step::More => break,
                Step::Message(message) => found.push(Some(message.to_vec())),
                Step::TooLong(_) => found.push(None),
            }
        }
    }
    assert_eq!(from, input.len());
    found
}

/// A line becomes an event whose source is a JSON object, content, or an error.
pub fn lines(input: &[u8]) {
    let indices = Indices::default();
    for line in input.split(|byte| *byte == b'\n') {
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
        match event::read(line, &indices, &chrono::Utc) {
            Ok(event::Line::Event(document)) => {
                let source: Result<serde_json::Map<String, serde_json::Value>, _> =
                    serde_json::from_slice(&document.source);
                // Numbers that are too large, and nesting that is too deep, are for the store to refuse.
                assert!(source.is_ok() || !is_object, "{}", String::from_utf8_lossy(&document.source));
            }
            Ok(event::Line::Data) => {}
            Err(_) => assert!(!is_object),
        }
    }
}

/// Rows of a billing log: a row comes back from what it is sorted as, sorts by call and time, and any rows make calls.
pub fn billing(input: &[u8]) {
    let clock = Clock::utc();
    let mut records = Vec::new();
    for (line, sequence) in input.split(|byte| *byte == b'\n').zip(0..) {
        // As a record of a temporary file, it is a row or damaged.
        let _ = decode(line);
        let Some(row) =
            Fields::of_json(line).and_then(|fields| Row::read(fields, &clock, sequence)).ok().flatten()
        else {
            continue;
        };
        let mut record = Vec::new();
        encode(&row, &mut record);
        assert_eq!(decode(&record).as_ref(), Ok(&row));
        records.push(record);
    }
    records.sort_unstable();
    let rows: Vec<Row<'_>> = records.iter().map(|record| decode(record).unwrap()).collect();
    assert!(rows.is_sorted_by_key(|row| (row.call_id.as_bytes(), row.time_us)));
    let mut calls: Vec<Call> = Vec::new();
    for rows in rows.chunk_by(|a, b| a.call_id == b.call_id) {
        let mut builder = Builder::new(&rows[0]);
        for row in rows {
            assert!(builder.is_of(row));
            builder.add(row);
        }
        calls.push(builder.finish(|a, b| a == b));
    }
    for call in &calls {
        assert!(compare(Some(call), Some(call), 0).is_empty());
        assert!(!compare(Some(call), None, 0).is_empty());
    }
}

/// What a broker says: a frame is read when it is whole, is the same whatever stands behind it, and what is none is told
/// as soon as that is known.
pub fn amqp(input: &[u8]) {
    const LARGEST: u32 = 4_096;
    let mut rest = input;
    while !rest.is_empty() {
        let all = frame::read(rest, LARGEST);
        let prefixes = rest.len().min(64);
        for end in (0..prefixes).chain(rest.len() - prefixes..rest.len()) {
            let part = frame::read(&rest[..end], LARGEST);
            assert!(part == Ok(None) || part == all, "{end}: {part:?}, then {all:?}");
        }
        let Ok(Some((_, bytes))) = all else { break };
        assert!((frame::FRAME_BYTES_AROUND..=LARGEST as usize).contains(&bytes) && bytes <= rest.len());
        rest = &rest[bytes..];
    }
}

/// Any request is answered, whatever its path, parameters and body: a line with method and target, and then the body.
pub fn elastic_request(input: &[u8]) {
    use std::sync::{Arc, LazyLock};

    use lea::http::Handler;
    use lea::http::parse::{Limits, Parser, Step};
    use lea::iri::elastic::{Elastic, Users};
    use lea::iri::number::{Families, Settings};
    use lea::iri::store::sqlite::{SqliteStore, StoreConfig};

    static ELASTIC: LazyLock<Elastic> = LazyLock::new(|| {
        let dir = Box::leak(Box::new(tempfile::tempdir().expect("a folder")));
        let store = SqliteStore::open(dir.path(), StoreConfig::default()).expect("a store");
        let families = Families::new(Settings::default()).expect("the settings are good");
        Elastic::new(Arc::new(store), Some(Arc::new(families)), Users::none(), Arc::default())
    });
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (line, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let head = format!(" HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let request = [line, head.as_bytes(), body].concat();
    let mut parser = Parser::new(Limits::default());
    let (mut rest, mut refused) = (&request[..], None);
    loop {
        let (used, step) = parser.feed(rest);
        rest = &rest[used..];
        match step {
            Step::Head => refused = ELASTIC.refuse(parser.request()),
            Step::Request => break,
            Step::More | Step::Refuse(_) => return,
        }
    }
    let response = refused.unwrap_or_else(|| ELASTIC.handle(parser.request()));
    assert!((200..=503).contains(&response.status), "{}", response.status);
    if response.content_type.starts_with("application/json") {
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&response.body);
        assert!(json.is_ok(), "{}", String::from_utf8_lossy(&response.body));
    }
}

/// HTTP requests are the same, and so is the refusal, for every split of the input.
pub fn http(input: &[u8]) {
    let whole = requests(std::iter::once(input));
    for segment_bytes in [1, 2, 7, 64] {
        assert_eq!(requests(input.chunks(segment_bytes)), whole, "{segment_bytes} bytes at once");
    }
}

/// What the parser makes of these segments: a text a request, and the refusal where there is one.
fn requests<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    use lea::http::parse::{Limits, Parser, Step};
    let mut parser = Parser::new(Limits { body_bytes_max: 4096, ..Limits::default() });
    let mut seen = Vec::new();
    for mut rest in segments {
        loop {
            let (used, step) = parser.feed(rest);
            rest = &rest[used..];
            match step {
                Step::More => break,
                Step::Head => {}
                Step::Request => {
                    let request = parser.request();
                    let pairs: Vec<_> = request.query_pairs().collect();
                    let headers: Vec<_> = request.headers().collect();
                    let (method, path, body) = (request.method(), request.path(), request.body());
                    seen.push(format!("{method:?} {path} {pairs:?} {headers:?} {body:?}"));
                    parser.next_request();
                }
                Step::Refuse(refusal) => {
                    seen.push(format!("{refusal:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}
