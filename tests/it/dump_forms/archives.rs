//! Directories and archives of dumps.

use std::path::Path;
use std::process::Command;

use super::*;

/// The directory of a broker with one partition in three segments, and everything else that a broker keeps there.
fn broker_dir(dir: &Workdir, partition_dir: &str) {
    let lines: Vec<Vec<u8>> = values().iter().map(|value| segment_of(value)).collect();
    let path = |name: &str| format!("{partition_dir}/{name}");
    fs::create_dir_all(dir.join(partition_dir)).unwrap();
    fs::create_dir_all(dir.join("data/__consumer_offsets-7")).unwrap();
    for (nth, lines) in lines.chunks(4).enumerate() {
        dir.write(path(&format!("{:020}.log", nth * 4)), batches(nth as i64 * 4, lines));
        dir.write(path(&format!("{:020}.index", nth * 4)), [0; 24]);
        dir.write(path(&format!("{:020}.timeindex", nth * 4)), [0; 24]);
    }
    dir.write(path("leader-epoch-checkpoint"), "0\n1\n0 0\n");
    dir.write(path("partition.metadata"), "version: 0\ntopic_id: x\n");
    dir.write("data/__consumer_offsets-7/00000000000000000000.log", batches(0, &lines[..1]));
    dir.write("data/meta.properties", "version=1\n");
    dir.write("data/.lock", "");
}

/// A record of a batch.
fn segment_of(value: &str) -> Vec<u8> {
    let varint = |number: i64| {
        let (mut rest, mut bytes) = (((number << 1) ^ (number >> 63)) as u64, Vec::new());
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    };
    let body = [vec![0, 0, 0, 1], varint(value.len() as i64), value.as_bytes().to_vec(), vec![0]].concat();
    [varint(body.len() as i64), body].concat()
}

/// Batches of one record each.
fn batches(first: i64, records: &[Vec<u8>]) -> Vec<u8> {
    let batch = |(offset, record): (i64, &Vec<u8>)| {
        let mut checked = vec![0; 2 + 4 + 16];
        checked.extend([0xff; 14]);
        checked.extend(1_u32.to_be_bytes());
        checked.extend(record);
        let crc = crc32c::crc32c(&checked).to_be_bytes();
        let length = (9 + checked.len() as u32).to_be_bytes();
        [&offset.to_be_bytes()[..], &length, &[0, 0, 0, 0, 2], &crc, &checked].concat()
    };
    (first..).zip(records).flat_map(batch).collect()
}

#[track_caller]
fn check_stream(dir: &Workdir, path: &Path, out: &str) -> Summary {
    let out = dir.join(out);
    let summary = decode(&[path.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!((summary.exit, summary.number("records")), (0, 10), "{}", summary.stderr);
    assert!(fs::read(out.join(NAME)).unwrap() == stream(), "{}", summary.stderr);
    let manifest = fs::read_to_string(out.join(format!("{NAME}.lea.json"))).unwrap();
    assert!(manifest.contains("\"interception\""), "{manifest}");
    summary
}

#[test]
fn the_directory_of_a_broker_is_read() {
    for partition_dir in [
        "data/interception-0",
        "data/interception-0.00112233445566778899aabbccddeeff-delete",
        "data/interception-0.1-stray",
    ] {
        let dir = Workdir::new();
        broker_dir(&dir, partition_dir);
        let summary = check_stream(&dir, &dir.join("data"), "out");
        assert_eq!((summary.number("files"), summary.number("skipped_files")), (3, 11), "{}", summary.stderr);
        check_stream(&dir, &dir.join(partition_dir), "out2");
    }
}

#[test]
fn archives_are_read() {
    let dir = Workdir::new();
    broker_dir(&dir, "data/interception-0");
    let python = "import sys, zipfile, os\n\
                  archive = zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED)\n\
                  [archive.write(os.path.join(base, name)) for base, _, names in os.walk('data') for name in names]";
    for (archive, command) in [
        ("a.tar", vec!["tar", "-cf", "a.tar", "data"]),
        ("a.tar.gz", vec!["tar", "-czf", "a.tar.gz", "data"]),
        ("a.tar.xz", vec!["tar", "-cJf", "a.tar.xz", "data"]),
        ("a.zip", vec!["python3", "-c", python]),
    ] {
        let made = Command::new(command[0]).args(&command[1..]).current_dir(dir.path()).status().unwrap();
        assert!(made.success(), "{archive}");
        let out = format!("out-{archive}");
        let summary = check_stream(&dir, &dir.join(archive), &out);
        assert_eq!(summary.number("files"), 3, "{archive}");
        // The members are the same dumps when the archive is read again.
        let again = decode(&[dir.join(archive).to_str().unwrap(), "-o", dir.join(&out).to_str().unwrap()]);
        assert_eq!((again.exit, again.number("already_stored")), (0, 10), "{archive}: {}", again.stderr);
    }
    // Half of an archive.
    let half = fs::read(dir.join("a.tar")).unwrap();
    let path = dir.write("half.tar", &half[..half.len() / 2]);
    let summary = decode(&[path.to_str().unwrap(), "-o", dir.join("half").to_str().unwrap()]);
    assert_eq!((summary.exit, summary.number("unread")), (3, 1), "{}", summary.stderr);
    assert!(summary.stderr.contains(" archive_damaged path="), "{}", summary.stderr);
}

/// Connect's S3 sink writes values without positions. The name of an object has its first offset.
#[test]
fn objects_of_connect_are_read_in_the_order_of_their_offsets() {
    let dir = Workdir::new();
    let objects = dir.join("topics/interception/partition=0");
    fs::create_dir_all(&objects).unwrap();
    let values = values();
    // As numbers they are in order, as text they are not.
    for (start, end, name) in [(0, 4, "interception+0+9.json"), (4, 10, "interception+0+13.json.gz")] {
        let text = values[start..end].iter().map(|value| format!("{value}\n")).collect::<String>();
        let bytes = if name.ends_with("gz") { gzip(text.as_bytes()) } else { text.into_bytes() };
        fs::write(objects.join(name), bytes).unwrap();
    }
    fs::write(objects.join("interception+0+9.keys.json"), "null\n").unwrap();
    let out = dir.join("out");
    let summary = decode(&[dir.join("topics").to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!((summary.exit, summary.number("skipped_files")), (0, 1), "{}", summary.stderr);
    assert!(fs::read(out.join(NAME)).unwrap() == stream());
}

#[test]
fn a_directory_without_dumps_is_not_done() {
    let dir = Workdir::new();
    fs::create_dir(dir.join("empty")).unwrap();
    let summary = decode(&[dir.join("empty").to_str().unwrap(), "-o", dir.join("out").to_str().unwrap()]);
    assert_eq!((summary.exit, summary.number("unread")), (3, 1), "{}", summary.stderr);
    let index = dir.write("00000000000000000000.index", [0; 24]);
    let summary = decode(&[index.to_str().unwrap(), "-o", dir.join("out").to_str().unwrap()]);
    assert_eq!((summary.exit, summary.number("unread")), (3, 1), "{}", summary.stderr);
}
