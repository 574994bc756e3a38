//! Tests of the readers on the sample dumps, which come from one real topic, and on generated dumps.

use super::*;
use crate::cc::wire::chunk;

const VALUES: &[u8] = include_bytes!("../../../../testdata/kafka/values.jsonl");
const KCAT: &[u8] = include_bytes!("../../../../testdata/kafka/kcat-J.jsonl");
const CONSOLE: &[u8] = include_bytes!("../../../../testdata/kafka/console-consumer.txt");
const LOG_TEXT: &[u8] = include_bytes!("../../../../testdata/kafka/dump-log.txt");
const SEGMENT: &[u8] = include_bytes!("../../../../testdata/kafka/00000000000000000000.log");
const LOGSTASH: &[u8] = include_bytes!("../../../../testdata/wire/logstash-call-data.jsonl");
const CAPTURE: &[u8] = include_bytes!("../../../../testdata/pcap/answered-call.pcap");

/// Topic, partition and offset of a record, and its value.
type FoundRecord = (Option<(String, i32, i64)>, Option<Vec<u8>>);

/// Result of reading a dump.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    records: Vec<FoundRecord>,
    /// Reasons with their locations.
    damage: Vec<String>,
    aborted: Vec<i64>,
    cut: bool,
}

fn detect(dump: &[u8]) -> DumpFormat {
    DumpFormat::detect(&dump[..dump.len().min(DETECT_BYTES_MAX)], true).unwrap().format
}

/// The format does not depend on how many bytes have arrived.
#[track_caller]
fn check_format(dump: &[u8], expected: DumpFormat) {
    let dump = &dump[..dump.len().min(DETECT_BYTES_MAX)];
    assert_eq!(detect(dump), expected, "{}", dump[..dump.len().min(300)].escape_ascii());
    for end in 0..dump.len().min(2_000) {
        let early = DumpFormat::detect(&dump[..end], false);
        assert!(early.is_none_or(|early| early.format == expected), "{early:?} at {end}, {expected:?}");
    }
}

/// Reads a dump in pieces of `step` bytes.
fn read(dump: &[u8], step_bytes: usize) -> Found {
    let mut reader = DumpReader::new(detect(dump), Some(("t", 7)));
    let (mut start, mut end, mut found) = (0, 0, Found::default());
    loop {
        let step = reader.step(&dump[start..end], end == dump.len());
        let consumed = step.consumed;
        assert!(consumed <= end - start);
        match step.item {
            DumpItem::NeedBytes(bytes) => {
                assert!(
                    consumed == 0 && end < dump.len() && bytes > end - start,
                    "{bytes} of {}",
                    end - start
                );
                end = (end + step_bytes).min(dump.len());
                continue;
            }
            DumpItem::End { truncated_bytes: cut_bytes } => {
                found.cut |= cut_bytes > 0;
                return found;
            }
            DumpItem::Skip => {}
            DumpItem::TransactionEnd { producer_id, is_abort: true, .. } => found.aborted.push(producer_id),
            DumpItem::TransactionEnd { .. } => {}
            DumpItem::Damaged { reason, first, .. } if first => {
                found.damage.push(format!("{} {reason}", step.location))
            }
            DumpItem::Damaged { .. } => {}
            DumpItem::Record { value: Some(value), is_last_line: true, .. }
                if matches!(chunk::parse(value), Err(chunk::ChunkError::NotJson(_))) =>
            {
                found.cut = true;
            }
            DumpItem::Record { position, value, .. } => {
                let position = position.map(|p| (p.topic.to_owned(), p.partition, p.offset));
                found.records.push((position, value.map(<[u8]>::to_vec)));
            }
        }
        start += consumed;
    }
}

fn check_damage(dump: &[u8], expected: &[&str]) -> Found {
    let found = read(dump, dump.len());
    assert_eq!(found.damage, expected, "{}", dump[..dump.len().min(300)].escape_ascii());
    found
}

fn values(found: &Found) -> Vec<&[u8]> {
    found.records.iter().map(|(_, value)| value.as_deref().unwrap()).collect()
}

fn content(found: &Found) -> Vec<u8> {
    let mut content = Vec::new();
    for value in values(found) {
        let chunk = chunk::parse(value).unwrap();
        assert_eq!(chunk.name, "+447700900123-2-3_21_11_2026_20:59:41.pcap");
        let start = content.len();
        content.resize(start + chunk.data.decoded_bytes_max(), 0);
        let bytes = chunk.data.decode(&mut content[start..]).unwrap();
        content.truncate(start + bytes);
    }
    content
}

#[test]
fn all_dump_formats_contain_the_same_stream() {
    for (dump, format, topic, partition) in [
        (VALUES, DumpFormat::Values, None, 0),
        (LOGSTASH, DumpFormat::Values, None, 0),
        (KCAT, DumpFormat::Kcat, Some("interception"), 0),
        (CONSOLE, DumpFormat::Console, Some(""), 0),
        (LOG_TEXT, DumpFormat::LogText, Some("interception"), 0),
        (SEGMENT, DumpFormat::Segment, Some("t"), 7),
    ] {
        check_format(dump, format);
        let found = read(dump, 256 << 10);
        assert_eq!((found.records.len(), &found.damage, found.cut), (1180, &Vec::new(), false), "{format:?}");
        assert!(content(&found) == CAPTURE, "{format:?}");
        for (nth, (position, _)) in found.records.iter().enumerate() {
            assert_eq!(*position, topic.map(|topic| (topic.to_owned(), partition, nth as i64)), "{format:?}");
        }
        // Including the damage that truncation causes.
        assert!(read(&dump[..dump.len() - 3], 4096).cut, "{format:?}");
    }
}

/// The start of a dump, up to a few records.
fn first_bytes(dump: &'static [u8]) -> &'static [u8] {
    let bytes = if dump[0] == 0 { 303 + 315 + 100 } else { 2000 };
    &dump[..bytes]
}

#[test]
fn records_do_not_depend_on_splits_and_survive_truncation() {
    for dump in [VALUES, LOGSTASH, KCAT, CONSOLE, LOG_TEXT, SEGMENT] {
        let dump = first_bytes(dump);
        let whole = read(dump, dump.len());
        assert!(whole.records.len() >= 2 && whole.cut, "{whole:?}");
        for step in 1..400 {
            assert_eq!(read(dump, step), whole, "{step}");
        }
        // Exactly the records before the cut are returned. A dump truncated in its first line may look like
        // another format.
        let first = if dump[0] == 0 { 61 } else { dump.iter().position(|byte| *byte == b'\n').unwrap() };
        for end in first + 1..dump.len() {
            let cut = read(&dump[..end], 1000);
            assert_eq!(cut.damage, Vec::<String>::new(), "{end}");
            assert!(whole.records.starts_with(&cut.records), "{end}: {cut:?}");
            assert_eq!(read(&dump[..end], 7), cut, "{end}");
        }
        for end in 0..=first {
            read(&dump[..end], 1);
        }
    }
}

#[test]
fn each_changed_bit_leaves_the_other_records() {
    for dump in [VALUES, KCAT, CONSOLE, LOG_TEXT, SEGMENT] {
        let mut dump = first_bytes(dump).to_vec();
        let whole = read(&dump, dump.len());
        for at in 0..dump.len() {
            dump[at] ^= 1 << (at % 8);
            let found = read(&dump, 500);
            let missing = whole.records.iter().filter(|record| !found.records.contains(record)).count();
            // A missing line end merges two lines. A changed format makes none of them readable.
            let first_line = at < 400;
            assert!(missing <= 2 || first_line, "{at}: {missing} are missing: {:?}", found.damage);
            assert_eq!(read(&dump, 97), found, "{at}");
            dump[at] ^= 1 << (at % 8);
        }
    }
}

fn check_value(dump: &str, format: DumpFormat, expected: Option<&str>) {
    assert_eq!(detect(dump.as_bytes()), format, "{dump}");
    let found = check_damage(dump.as_bytes(), &[]);
    let last = found.records.last().unwrap().1.as_deref();
    assert_eq!(last, expected.map(str::as_bytes), "{dump}");
}

const VALUE: &str = r#"{"userid": "y", "data": "YQ=="}"#;

#[test]
fn each_line_of_a_values_dump_is_a_record() {
    check_value(&format!("\n \r\n{VALUE}\r\n"), DumpFormat::Values, Some(VALUE));
    check_value(&format!("% Reached end of topic\n{VALUE}"), DumpFormat::Values, Some(VALUE));
    check_value("no JSON\n", DumpFormat::Values, Some("no JSON"));
    assert_eq!(read(b"", 1), Found::default());
    assert_eq!(read(b"\n\n", 1), Found::default());
}

#[test]
fn kcat_envelopes_are_read() {
    let check = |line: &str, expected| check_value(&format!("{line}\n"), DumpFormat::Kcat, expected);
    let text = VALUE.replace('"', "\\\"");
    check(&format!(r#"{{"topic":"t","partition":0,"offset":1,"key":"","payload":"{text}"}}"#), Some(VALUE));
    // Ignored fields may have any value, and the order does not matter.
    let odd = format!(
        r#"{{"payload":"{text}","headers":["a","b\u00e9"],"key":"{{\"x\":1}}","offset":1,"partition":0,"topic":"t"}}"#
    );
    check(&odd, Some(VALUE));
    check(r#"{"topic":"t","partition":0,"offset":1,"key":null,"payload":null}"#, None);
    check(r#"{"topic":"t","partition":0,"offset":1,"payload":"caf\u00e9"}"#, Some("café"));
    check(r#"{"topic":"t","partition":0,"offset":1,"payload":"plain"}"#, Some("plain"));
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, VALUE);
    check(&format!(r#"{{"topic":"t","payload":"{base64}"}}"#), Some(VALUE));
    check(r#"{"topic":"t","payload":"YWJj"}"#, Some("YWJj"));

    let good = format!(r#"{{"topic":"t","partition":0,"offset":1,"payload":"{text}"}}"#);
    let bad = format!("{good}\n{{\"topic\":\"t\"}}\n{{\"topic\"\nx\n{good}\n");
    let found = check_damage(
        bad.as_bytes(),
        &[
            "line=2 the envelope has no payload",
            "line=3 not a JSON object: EOF while parsing an object at byte 7",
            "line=4 not a JSON object: expected value at byte 0",
        ],
    );
    assert_eq!(values(&found), [VALUE.as_bytes(), VALUE.as_bytes()]);
}

#[test]
fn console_consumer_lines_are_read() {
    let check = |line: String, expected: &str| check_value(&line, DumpFormat::Console, Some(expected));
    let known = "CreateTime:1\tPartition:3\tDelivery:1\tEpoch:0\tOffset:12\t";
    check(format!("{known}NO_HEADERS\tnull\t{VALUE}\n"), VALUE);
    check(format!("{known}a:b,c:{{\"x\"\tk\t{VALUE}\n"), VALUE);
    check(format!("NO_TIMESTAMP\tkey\twith\ttabs\t{VALUE}\n"), VALUE);
    check(format!("LogAppendTime:1\t{VALUE}\n"), VALUE);
    check(format!("null\t{VALUE}\nProcessed a total of 1 messages\n"), VALUE);
    check(format!("{{\"key\":1}}\t{VALUE}\n").replace("{\"key", "CreateTime:1\t{\"key"), VALUE);
    let tabs = VALUE.replace(' ', "\t");
    check(format!("Offset:1\t{tabs}\n"), &tabs);
    check("Offset:1\tk\tno JSON\n".to_owned(), "no JSON");
    check_value("Offset:1\tnull\n", DumpFormat::Console, None);

    let positions: Vec<_> =
        [format!("{known}{VALUE}"), format!("Offset:5\t{VALUE}"), format!("Partition:x\tOffset:5\t{VALUE}")]
            .iter()
            .map(|line| read(line.as_bytes(), 10).records[0].0.clone())
            .collect();
    assert_eq!(positions, [Some((String::new(), 3, 12)), None, None]);
}

#[test]
fn kafka_dump_log_lines_are_read() {
    let size = VALUE.len();
    let record = |offset: u32, middle: &str, size: usize, value: &str| {
        format!(
            "| offset: {offset} CreateTime: 1 keySize: -1 valueSize: {size} sequence: 0 headerKeys: [] {middle}payload: {value}\n"
        )
    };
    let head = "Dumping /data/a-b-12/00000000000000000000.log\nLog starting offset: 0\nbaseOffset: 0 isvalid: true\n";
    let check = |lines: String, expected: &str| {
        check_value(&format!("{head}{lines}"), DumpFormat::LogText, Some(expected))
    };
    check(record(4, "", size, VALUE), VALUE);
    check(record(4, "key: k ", size, VALUE), VALUE);
    check(record(4, "key: a payload: b ", size, VALUE), VALUE);
    // The size does not match the printed bytes, because they were not UTF-8.
    check(record(4, "", size - 1, VALUE), VALUE);
    check(
        format!(
            "offset: 4 position: 0 CreateTime: 1 isvalid: true keysize: -1 valuesize: {size} magic: 2 payload: {VALUE}\n"
        ),
        VALUE,
    );
    // Values of several lines, one of them the last in the dump, and one with a wrong size.
    let lines = VALUE.replace(' ', "\n");
    check(record(4, "", size, &lines), &lines);
    check(record(4, "", size, &lines) + &record(5, "", size, VALUE), VALUE);
    check(record(4, "", size + 200, VALUE) + &record(5, "", size, VALUE), VALUE);

    let found = check_damage(
        format!(
            "{head}{}| offset: 5 keySize: 4 valueSize: 6 headerKeys: [] endTxnMarker: COMMIT coordinatorEpoch: 0\n\
             | offset: 6 keySize: -1 valueSize: -1 headerKeys: []\nnothing\nbaseOffset: 7 isvalid: false crc: 1\n\
             | offset: x payload: {{}}\n| offset: 7 keySize: 1 valueSize: 2 headerKeys: []\n{}",
            record(4, "", size, VALUE),
            record(8, "", size, VALUE)
        )
        .as_bytes(),
        &[
            "line=7 not a line of kafka-dump-log",
            "line=8 the broker's tool reported this batch as damaged (isvalid: false)",
            "line=9 the record has no offset",
            "line=10 the record has no payload (make the dump with --print-data-log)",
        ],
    );
    let at = |offset| Some(("a-b".to_owned(), 12, offset));
    let value = || Some(VALUE.as_bytes().to_vec());
    assert_eq!(found.records, [(at(4), value()), (at(6), None), (at(8), value())]);
}

#[test]
fn dead_letters_are_read_back() {
    let mut dump = Vec::new();
    let all: Vec<u8> = (0..=255).collect();
    let values: [Option<&[u8]>; 5] =
        [Some(VALUE.as_bytes()), Some(b"\x01\x02\x03"), Some(&all), Some(b""), None];
    for (offset, value) in (0..).zip(values) {
        let position = Some(KafkaPosition { topic: "t", partition: 3, offset });
        let source = Some(("a \"dump\"", DumpLocation::Line(7)));
        let line = RecordDeadLetter { position, source, reason: "not a JSON object: why", value }.to_line();
        assert!(line.starts_with(b"{\"lea_dead_letter\":1,\"topic\":\"t\",\"partition\":3,"));
        dump.extend(line);
    }
    let unplaced =
        RecordDeadLetter { position: None, source: None, reason: "r", value: Some(b"v") }.to_line();
    assert_eq!(unplaced, b"{\"lea_dead_letter\":1,\"reason\":\"r\",\"value\":\"v\"}\n");
    dump.extend(unplaced);
    assert_eq!(detect(&dump), DumpFormat::DeadLetters);
    let found = check_damage(&dump, &[]);
    let mut expected: Vec<_> = (0..)
        .zip(values)
        .map(|(offset, value)| (Some(("t".to_owned(), 3, offset)), value.map(<[u8]>::to_vec)))
        .collect();
    expected.push((None, Some(b"v".to_vec())));
    assert_eq!(found.records, expected);
    check_damage(
        b"{\"lea_dead_letter\":1,\"value\":\"\"}\n{\"lea_dead_letter\":2}\n{}\nx\n{\"lea_dead_letter\":1,\"value_base64\":\"!\"}\n",
        &[
            "line=2 dead letter format 2 is not supported (this lea supports 1)",
            "line=3 not a dead letter",
            "line=4 not a JSON object: expected value at byte 0",
            "line=5 value_base64 is not base64",
        ],
    );
}

#[test]
fn lines_up_to_the_limit_are_read_and_longer_ones_skipped() {
    let fits = [b"x".repeat(LINE_BYTES_MAX), b"\n{}\n".to_vec()].concat();
    let found = read(&fits, 1 << 20);
    assert_eq!((found.records.len(), found.damage.len()), (2, 0));
    let long = [b"x".repeat(LINE_BYTES_MAX + 1), b"\n{}\n".to_vec()].concat();
    for step in [1 << 20, long.len()] {
        let found = read(&long, step);
        assert_eq!(
            (values(&found), &found.damage),
            (vec![&b"{}"[..]], &vec!["line=1 the line exceeds the limit of 33619968 bytes".to_owned()])
        );
    }
    let endless = read(&long[..LINE_BYTES_MAX + 1], 1 << 20);
    assert_eq!((endless.records.len(), endless.damage.len()), (0, 1));
}

/// Builds a batch as a broker stores it. `kind` is the attributes.
fn batch(base_offset: i64, kind: u16, records: &[u8], count: u32) -> Vec<u8> {
    let mut batch = Vec::new();
    batch.extend(base_offset.to_be_bytes());
    batch.extend((49 + records.len() as u32).to_be_bytes());
    batch.extend([0, 0, 0, 0, 2, 0, 0, 0, 0]);
    batch.extend(kind.to_be_bytes());
    batch.extend((count.max(1) - 1).to_be_bytes());
    batch.extend([0; 16]);
    batch.extend(4711i64.to_be_bytes());
    batch.extend([0; 6]);
    batch.extend(count.to_be_bytes());
    batch.extend(records);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// Builds a record of less than 64 bytes. `key` must have less than 32.
fn record(offset_delta: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 2 * offset_delta, 2 * key.len() as u8];
    body.extend(key);
    body.push(2 * value.len() as u8);
    body.extend(value);
    body.push(0);
    body.insert(0, 2 * body.len() as u8);
    body
}

fn offsets(found: &Found) -> Vec<i64> {
    found.records.iter().map(|(position, _)| position.as_ref().unwrap().2).collect()
}

#[test]
fn batches_of_each_kind_are_read() {
    let two = [record(0, b"k", VALUE.as_bytes()), record(3, b"", b"")].concat();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &two).unwrap();
        encoder.finish().unwrap()
    };
    let segment = [
        batch(10, 0, &two, 2),
        batch(20, 1, &gzip, 2),
        batch(30, 4, &zstd::encode_all(&two[..], 1).unwrap(), 2),
        // An aborted transaction and a committed one.
        batch(40, 0x10, &two, 2),
        batch(44, 0x30, &record(0, &[0, 0, 0, 0], &[0; 6]), 1),
        batch(45, 0x30, &record(0, &[0, 0, 0, 1], &[0; 6]), 1),
        batch(46, 0, b"", 0),
    ]
    .concat();
    for step in [1, 61, 100, segment.len()] {
        let found = read(&segment, step);
        assert_eq!(offsets(&found), [10, 13, 20, 23, 30, 33, 40, 43]);
        assert_eq!((found.aborted, found.damage, found.cut), (vec![4711], vec![], false));
    }
    // A preallocated file ends in zeros.
    for zeros in [1, 60, 61, 62, 200, 5000] {
        let found = read(&[&segment[..], &vec![0; zeros]].concat(), 64);
        assert_eq!((offsets(&found).len(), found.damage, found.cut), (8, vec![], false), "{zeros}");
    }
}

#[test]
fn damaged_batches_are_skipped() {
    let good = |offset| batch(offset, 0, &record(0, b"", b"v"), 1);
    let length = good(0).len();
    let check = |middle: Vec<u8>, reason: &str| {
        let segment = [good(0), middle, good(9)].concat();
        let found = check_damage(&segment, &[&format!("byte={length} {reason}")]);
        assert!(matches!(offsets(&found)[..], [0, 9] | [0, 5, 9]), "{reason}: {found:?}");
        for step in [1, 61, 97] {
            assert_eq!(read(&segment, step), found, "{reason}, {step} bytes a time");
        }
    };
    let mut wrong = good(5);
    wrong[length - 2] ^= 1;
    check(wrong.clone(), "a batch with a wrong checksum");
    check(batch(5, 4, b"no zstd", 1), "the batch cannot be decompressed: zstd: Unknown frame descriptor");
    check(batch(5, 5, b"", 1), "the batch cannot be decompressed: unknown codec number 5");
    check(batch(5, 0, &record(0, b"", b"v"), 2), "a record of the batch is malformed (1 records are lost)");
    let mut old = good(5);
    old[16] = 1;
    let mut crc = flate2::Crc::new();
    crc.update(&old[16..]);
    old[12..16].copy_from_slice(&crc.sum().to_be_bytes());
    check(old, "not a record batch");
    check(b"noise in between".to_vec(), "not a record batch");
    check(vec![0xff; 1000], "not a record batch");
    let mut long = good(5);
    long[10] = 1;
    check(long, "a batch with a wrong length");
    // A value may contain a forged batch: only the enclosing batch counts.
    let mut forged = batch(5, 0, &[&[0; 40][..], &good(6), &[0; 40]].concat(), 1);
    forged[21 + 40] ^= 1;
    check(forged, "a batch with a wrong checksum");
    // Two consecutive damaged batches are reported separately.
    let found = check_damage(
        &[good(0), wrong.clone(), wrong, good(9)].concat(),
        &[
            &format!("byte={length} a batch with a wrong checksum"),
            &format!("byte={} a batch with a wrong checksum", 2 * length),
        ],
    );
    assert_eq!(offsets(&found), [0, 9]);
    // A segment whose start is missing.
    let segment = [good(0), good(1), good(2)].concat();
    for start in 1..length {
        let found = read(&segment[start..], 50);
        assert_eq!((offsets(&found), found.damage.len()), (vec![1, 2], 1), "{start}");
    }
}

#[test]
fn partition_directories_are_parsed() {
    assert_eq!(parse_partition_dir("interception-0"), Some(("interception", 0)));
    assert_eq!(parse_partition_dir("a-b-12"), Some(("a-b", 12)));
    for other in ["", "-0", "kafka", "a-", "a-x", "a-+1", "a-99999999999"] {
        assert_eq!(parse_partition_dir(other), None, "{other}");
    }
}

/// Segments written by a broker 4.3.1 for Java's producer: the first 40 values in each compression, and
/// twelve values in three transactions, of which the second was aborted and the third has headers.
#[test]
fn segments_of_a_real_broker_are_read() {
    let first: Vec<&[u8]> = VALUES.split(|byte| *byte == b'\n').take(40).collect();
    let segments: [&[u8]; 5] = [
        include_bytes!("../../../../testdata/kafka/segments/none.log"),
        include_bytes!("../../../../testdata/kafka/segments/gzip.log"),
        include_bytes!("../../../../testdata/kafka/segments/snappy.log"),
        include_bytes!("../../../../testdata/kafka/segments/lz4.log"),
        include_bytes!("../../../../testdata/kafka/segments/zstd.log"),
    ];
    for segment in segments {
        let found = check_damage(segment, &[]);
        assert!(values(&found) == first);
        assert_eq!(offsets(&found), (0..40).collect::<Vec<_>>());
        for end in 0..segment.len().min(3000) {
            let cut = read(&segment[..end], 300);
            assert!(
                found.records.starts_with(&cut.records) && cut.damage.is_empty(),
                "{end}: {:?}",
                cut.damage
            );
        }
    }
    let found = check_damage(include_bytes!("../../../../testdata/kafka/segments/transactions.log"), &[]);
    assert_eq!(offsets(&found), [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]);
    assert!(values(&found) == first[..12]);
    assert_eq!(found.aborted.len(), 1);
}

/// The values of a dump of any form, whatever the size of the pieces.
fn check_form(dump: &[u8], format: DumpFormat, expected: &[&str], damage: &[&str]) -> Found {
    check_format(dump, format);
    let found = check_damage(dump, damage);
    let values: Vec<String> =
        values(&found).iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    assert_eq!(values, expected, "{}", dump.escape_ascii());
    for step in 1..dump.len().min(300) {
        assert_eq!(read(dump, step), found, "{step}: {}", dump.escape_ascii());
    }
    found
}

const A: &str = r#"{"userid":"y","data":"YQ=="}"#;
const B: &str = r#"{"userid":"y","data":"Yg=="}"#;

#[test]
fn json_values_are_read_in_any_arrangement() {
    let json = |dump: &str| check_form(dump.as_bytes(), DumpFormat::Json, &[A, B], &[]);
    for dump in [
        format!("[{A},{B}]"),
        format!("[\n  {A},\n  {B}\n]\n"),
        format!("{A};{B}"),
        format!("{A};{B};\n"),
        format!("{A}{B}"),
        format!("{A}\0{B}\0"),
        format!("{A}\0\n{B}\0\n"),
        format!("\u{1e}{A}\n\u{1e}{B}\n"),
        format!("\0\0\0\0\u{2}{A}\n\0\0\0\0\u{2}{B}\n"),
        format!("\0\0\0\0\n{A}\n\0\0\0\0\n{B}\n"),
        format!("\0\0\0\0{{{A}\0\0\0\0{{{B}"),
        format!("[{}, {}]", serde_json::json!(A), serde_json::json!(B)),
        format!("{{\"records\":[{{\"value\":{A}}},{{\"value\":{B}}}]}}"),
        format!("% Reached end of topic\n[{A},{B}]"),
    ] {
        json(&dump);
    }
    let pretty = A.replace(',', ",\n  ") + "\n" + &B.replace(',', ",\n  ");
    check_form(
        pretty.as_bytes(),
        DumpFormat::Json,
        &[&A.replace(',', ",\n  "), &B.replace(',', ",\n  ")],
        &[],
    );
    let ruby = "{\n    \"userid\" => \"y\",\n      \"data\" => \"YQ==\"\n}\n";
    check_form(ruby.as_bytes(), DumpFormat::Json, &[A], &[]);
    let found = read(format!("[{A},null]").as_bytes(), 10);
    assert_eq!(found.records[1], (None, None));
}

#[test]
fn damage_between_json_values_leaves_the_others() {
    let json = |dump: String, expected: &[&str], damage: &[&str]| {
        check_form(dump.as_bytes(), DumpFormat::Json, expected, damage)
    };
    let damaged = "line=2 the JSON value is damaged";
    json(format!("[{A},\n{},\n{B}]", &A[..20]), &[A, B], &[damaged]);
    json(format!("[{A},\n{}\n,{B}]", &A[..10]), &[A, B], &[damaged]);
    json(format!("[{A},\nx y z\n,{B}]"), &[A, B], &["line=2 text between the JSON values"]);
    json(format!("[{A},\n{}\n,{B}]", &A[1..]), &[A, B], &["line=2 a string between the JSON values"]);
    // Nothing ends the second value, which contains the third one.
    json(format!("[{A},{{\"x\":[{B}]"), &[A, B], &["line=1 the JSON value is damaged"]);
    json(format!("[{A},{{\"x\":{B}"), &[A], &[]);
    // The end of the dump is cut off.
    assert!(json(format!("[{A},{}", &B[..20]), &[A], &[]).cut);
}

#[test]
fn a_key_or_other_text_may_come_before_the_value() {
    let keyed = |dump: &str| check_form(dump.as_bytes(), DumpFormat::Keyed, &[A, B], &[]);
    for dump in [
        format!("k:{A}\nk:{B}\n"),
        format!("k|{A}\nk|{B}\n"),
        format!("a b {{c}} {A}\n{A}{B}"),
        format!("{{\"id\":1}}|{A}\n{{\"id\":2}}|{B}\n"),
        format!("{{\"id\":1}}\t{A}\n{{\"id\":2}}\t{B}\n"),
        format!("{A}|key\n{B}|key\n"),
    ] {
        keyed(&dump);
    }
    let found =
        keyed(&format!("Topic t [3] at offset 12: key : {A}\nTopic t [3] at offset 13: key x: {B}\n"));
    let positions: Vec<_> = found.records.iter().map(|(position, _)| position.clone().unwrap()).collect();
    assert_eq!(positions, [("t".to_owned(), 3, 12), ("t".to_owned(), 3, 13)]);
    check_form(
        format!("k:{A}\nk:{}\nk:{B}\n", &A[..20]).as_bytes(),
        DumpFormat::Keyed,
        &[A, B],
        &["line=2 the line contains no complete JSON object"],
    );
}

#[test]
fn envelopes_of_many_tools_are_opened() {
    let text = serde_json::json!(A);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, A);
    let hex = crate::runtime::hex::encode(A.as_bytes());
    let bytes = serde_json::json!(A.as_bytes());
    let place = r#""topic":"t","partition":7,"offset":12"#;
    for (tool, envelope) in [
        ("kcat -J", format!(r#"{{{place},"tstype":"create","ts":1,"key":null,"payload":{text}}}"#)),
        (
            "rpk",
            format!(r#"{{"topic":"t","key":"k","value":{text},"timestamp":1,"partition":7,"offset":12}}"#),
        ),
        ("kt", format!(r#"{{"partition":7,"offset":12,"key":null,"value":{text},"topic":"t"}}"#)),
        ("kt hex", format!(r#"{{{place},"value":"{hex}"}}"#)),
        ("kaf", format!(r#"{{{place},"key":"","payload":{A}}}"#)),
        (
            "AKHQ",
            format!(
                r#"{{"topic":{{"name":"t","internal":false}},"partition":7,"offset":12,"value":{text}}}"#
            ),
        ),
        ("kafka-ui", format!(r#"{{"Value":{text},"Offset":12,"Partition":7,"Headers":{{}},"Topic":"t"}}"#)),
        ("REST v2 binary", format!(r#"{{{place},"key":null,"value":"{base64}"}}"#)),
        ("REST v2 json", format!(r#"{{{place},"key":null,"value":{A}}}"#)),
        (
            "REST v3",
            format!(
                r#"{{"topic_name":"t","partition_id":7,"offset":12,"value":{{"type":"BINARY","data":"{base64}"}}}}"#
            ),
        ),
        ("REST v3 JSON", format!(r#"{{{place},"value":{{"type":"JSON","data":{A}}}}}"#)),
        (
            "Redpanda console",
            format!(
                r#"{{"topic":"t","partitionID":7,"offset":12,"value":{{"payload":{A},"encoding":"json"}}}}"#
            ),
        ),
        ("schema", format!(r#"{{{place},"value":{{"schema":{{"type":"struct"}},"payload":{A}}}}}"#)),
        (
            "kafkajs",
            format!(
                r#"{{"topic":"t","partition":7,"message":{{"offset":"12","value":{{"type":"Buffer","data":{bytes}}}}}}}"#
            ),
        ),
        ("Vector", format!(r#"{{"message":{text},"message_key":"k","source_type":"kafka",{place}}}"#)),
        ("Filebeat", format!(r#"{{"@timestamp":"x","kafka":{{{place},"key":""}},"message":{text}}}"#)),
        ("Logstash", format!(r#"{{"message":{text},"@metadata":{{"kafka":{{{place}}}}}}}"#)),
        ("bytes", format!(r#"{{{place},"value":{bytes}}}"#)),
    ] {
        let found = check_form(format!("{envelope}\n").as_bytes(), DumpFormat::Kcat, &[A], &[]);
        assert_eq!(found.records[0].0, Some(("t".to_owned(), 7, 12)), "{tool}");
        // The same in an array.
        let found = check_form(format!("[{envelope}]").as_bytes(), DumpFormat::Json, &[A], &[]);
        assert_eq!(found.records[0].0, Some(("t".to_owned(), 7, 12)), "{tool}");
    }
    for (envelope, reason) in [
        (r#"{"topic":"t","payload":7}"#, "line=1 the payload is a number or a boolean"),
        (r#"{"topic":"t","payload":["a"]}"#, "line=1 the payload is an array, and not one of bytes"),
    ] {
        check_form(format!("{envelope}\n").as_bytes(), DumpFormat::Kcat, &[], &[reason]);
    }
}

#[test]
fn a_record_with_the_members_of_an_envelope_is_a_record() {
    let value = r#"{"topic":"x","userid":"y","data":"YQ==","value":"z"}"#;
    check_form(format!("{value}\n").as_bytes(), DumpFormat::Values, &[value], &[]);
}

/// Input that is not available yet is asked for, also after the start of a line was skipped.
#[test]
fn a_line_beyond_the_limit_ends_when_it_arrives_in_pieces() {
    for start in ["{\"userid\":\"", "[{\"userid\":\""] {
        let long = [
            start.as_bytes(),
            &b"x".repeat(LINE_BYTES_MAX + (1 << 20)),
            b"\"}\n{\"userid\":\"z\",\"data\":\"\"}\n",
        ]
        .concat();
        let found = read(&long, 256 << 10);
        assert_eq!((found.records.len(), found.damage.len()), (1, 1), "{start}");
    }
}

/// A message in format v0 or v1.
fn message(magic: u8, offset: i64, codec: u8, value: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![magic, codec];
    if magic == 1 {
        body.extend(1_700_000_000_000_i64.to_be_bytes());
    }
    body.extend((-1_i32).to_be_bytes());
    body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
    body.extend(value.unwrap_or_default());
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    let size = 4 + body.len() as i32;
    [&offset.to_be_bytes()[..], &size.to_be_bytes(), &crc.sum().to_be_bytes(), &body].concat()
}

/// Compressed messages, as a client compresses them.
fn wrapped(magic: u8, codec: u8, first: i64, values: &[&[u8]]) -> Vec<u8> {
    let inner: Vec<u8> = (0..)
        .zip(values)
        .flat_map(|(nth, value)| message(magic, if magic == 1 { nth } else { first + nth }, 0, Some(value)))
        .collect();
    let compressed = match codec {
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &inner).unwrap();
            encoder.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(&inner).unwrap(),
        _ => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            std::io::Write::write_all(&mut encoder, &inner).unwrap();
            let mut frame = encoder.finish().unwrap();
            // Old clients included the magic number in the checksum of the header.
            frame[6] ^= u8::from(magic == 0) * 0x5a;
            frame
        }
    };
    message(magic, first + values.len() as i64 - 1, codec, Some(&compressed))
}

#[test]
fn messages_of_earlier_formats_are_read() {
    let value = VALUE.as_bytes();
    for magic in [0, 1] {
        let mut segment = [message(magic, 10, 0, Some(value)), message(magic, 11, 0, None)].concat();
        for (codec, first) in [(1, 12), (2, 14), (3, 16)] {
            segment.extend(wrapped(magic, codec, first, &[value, b"v"]));
        }
        // The last message is shorter than the header of a batch.
        segment.extend(message(magic, 18, 0, Some(b"")));
        for step in [1, 61, 100, segment.len()] {
            let found = read(&segment, step);
            assert_eq!(detect(&segment), DumpFormat::Segment);
            assert_eq!(offsets(&found), (10..=18).collect::<Vec<_>>(), "v{magic}: {:?}", found.damage);
            assert_eq!((found.damage, found.cut), (vec![], false));
        }
        for end in 0..segment.len() {
            let cut = read(&segment[..end], 300);
            assert!(cut.damage.is_empty(), "{end}: {:?}", cut.damage);
        }
        // One damaged message leaves the others.
        let length = message(magic, 10, 0, Some(value)).len();
        segment[length - 5] ^= 1;
        let found = check_damage(&segment, &["byte=0 a batch with a wrong checksum"]);
        assert_eq!(offsets(&found), (11..=18).collect::<Vec<_>>());
    }
    // Batches after messages, as in a topic that was converted.
    let mixed = [message(1, 10, 0, Some(value)), batch(11, 0, &record(0, b"", value), 1)].concat();
    assert_eq!(offsets(&check_damage(&mixed, &[])), [10, 11]);
}

#[test]
fn log_text_of_other_forms_is_read() {
    let head = "Dumping /d/t-3/0.log\nLog starting offset: 0\n";
    let batch = |base: u32, last: u32, more: &str| {
        format!(
            "baseOffset: {base} lastOffset: {last} count: 2 baseSequence: 0 producerId: 7 {more} isvalid: true\n"
        )
    };
    let check = |lines: String, expected: &[i64]| {
        let dump = format!("{head}{lines}");
        check_format(dump.as_bytes(), DumpFormat::LogText);
        let found = check_damage(dump.as_bytes(), &[]);
        for step in [1, 7, 300] {
            assert_eq!(read(dump.as_bytes(), step), found, "{step}: {dump}");
        }
        let offsets: Vec<i64> =
            found.records.iter().map(|(position, _)| position.as_ref().map_or(-1, |known| known.2)).collect();
        assert_eq!(offsets, expected, "{dump}");
        assert!(found.records.iter().all(|(_, value)| value.as_deref() == Some(A.as_bytes())), "{found:?}");
        found
    };
    // --skip-record-metadata: the offset follows from the batch, unless compaction removed records.
    check(batch(4, 5, "") + &format!("| payload: {A}\n| key: k payload: {A}\n"), &[4, 5]);
    check(batch(4, 9, "") + &format!("| payload: {A}\n| payload: {A}\n"), &[-1, -1]);
    // Line ends in a key.
    let record = |offset: u32, key: &str| {
        format!(
            "| offset: {offset} CreateTime: 1 keySize: {} valueSize: {} sequence: -1 headerKeys: [] key: {key} payload: {A}\n",
            key.len(),
            A.len()
        )
    };
    check(record(4, "a\nb") + &record(5, "\n\n") + &record(6, " payload: \n"), &[4, 5, 6]);
    // Indexes and remarks.
    let index = "Dumping /d/t-3/0.index\noffset: 24 position: 4100\nDumping /d/t-3/0.timeindex\ntimestamp: 1 offset: 24\n";
    check(
        format!(
            "{index}{head}{}Mismatches in :/d/t-3/0.index\n Index offset: 1, log offset: 2\n",
            record(4, "k")
        ),
        &[4],
    );
    // Transactions.
    let control = |offset: u32, what: &str| {
        batch(offset, offset, "isTransactional: true isControl: true")
            + &format!(
                "| offset: {offset} CreateTime: 1 keySize: 4 valueSize: 6 sequence: -1 headerKeys: [] endTxnMarker: {what} coordinatorEpoch: 0\n"
            )
    };
    let begun = batch(4, 4, "isTransactional: true") + &record(4, "k");
    let found = check(begun.clone() + &control(5, "ABORT") + &begun + &control(7, "COMMIT"), &[4, 4]);
    assert_eq!(found.aborted, [7]);
}
