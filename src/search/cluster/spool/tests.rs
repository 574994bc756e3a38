//! Tests of the spool: acknowledged records survive disk errors, crashes and bit flips.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use super::log::{RecoveredLog, SpoolLog};
use super::segment::{self, HEADER_BYTES, RECORD_HEAD_BYTES};
use super::*;

const CONFIG: SpoolConfig = SpoolConfig { bytes_max: 1 << 20, free_bytes_min: 0, segment_bytes: 400 };

fn payload(number: u64) -> Vec<u8> {
    format!("event {number} {}", "x".repeat(number as usize % 50)).into_bytes()
}

fn payloads(numbers: std::ops::Range<u64>) -> Payloads {
    let mut payloads = Payloads::default();
    numbers.for_each(|number| payloads.add(|bytes| bytes.extend(payload(number))));
    payloads
}

fn records(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers.for_each(|number| segment::append_record(&mut bytes, number, &payload(number)));
    bytes
}

/// Reads from the acked position; returns the numbers of the records and how many were reported lost.
fn read(shared: &Arc<SpoolShared>) -> (Vec<u64>, u64) {
    let (mut found, mut lost) = (Vec::new(), 0);
    let mut reader = SpoolReader::open(Arc::clone(shared), shared.acked()).unwrap();
    let end = shared.lock().end;
    while let Some(next) = reader.next(end).unwrap() {
        match next {
            SpoolEntry::Record { number, payload: found_payload } => {
                assert_eq!(found_payload, payload(number));
                found.push(number);
            }
            SpoolEntry::Damaged(damage) => lost += damage.lost,
        }
    }
    assert_eq!(reader.position().number, end.number);
    (found, lost)
}

fn open_spool(dir: &Path) -> (Spool, AckHandle) {
    Spool::open(dir, CONFIG, Arc::default()).unwrap()
}

/// Creates a spool with `count` records in appends of three; returns the files of its segments.
fn filled(dir: &Path, count: u64) -> Vec<PathBuf> {
    let (spool, _) = open_spool(dir);
    for first in (0..count).step_by(3) {
        assert_eq!(spool.append(payloads(first..(first + 3).min(count))).unwrap(), first);
    }
    drop(spool);
    segments(dir)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let bases = SpoolDisk::open(&dir.join(DIR)).unwrap().segments().unwrap();
    bases.into_iter().map(|base| dir.join(DIR).join(format!("{base:016x}.log"))).collect()
}

#[test]
fn records_survive_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 100);
    assert!(files.len() > 5, "{files:?}");
    let (spool, _) = open_spool(dir.path());
    assert_eq!(read(spool.shared()), ((0..100).collect(), 0));
    assert_eq!(spool.append(payloads(100..103)).unwrap(), 100);
    assert_eq!(read(spool.shared()), ((0..103).collect(), 0));
    assert_eq!(spool.shared().metrics.spool_events.get(), 103);
}

#[test]
fn concurrent_callers_get_distinct_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig { segment_bytes: 4_000, ..CONFIG };
    let (spool, _) = Spool::open(dir.path(), config, Arc::default()).unwrap();
    let mut firsts: Vec<u64> = std::thread::scope(|scope| {
        let call = || (0..50).map(|_| spool.append(payloads(0..2)).unwrap()).collect::<Vec<_>>();
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    firsts.sort_unstable();
    assert_eq!(firsts, (0..400).map(|nth| 2 * nth).collect::<Vec<_>>());
}

#[test]
fn log_id_is_stable_and_unique() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = |dir: &Path| open_spool(dir).0.shared().log_id();
    let first = id(one.path());
    filled(one.path(), 40);
    assert_eq!(id(one.path()), first);
    assert_ne!(id(other.path()), first);
}

#[test]
fn acked_segments_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path(), 100).len();
    let (spool, mut acks) = open_spool(dir.path());
    let mut reader = SpoolReader::open(Arc::clone(spool.shared()), spool.shared().acked()).unwrap();
    let end = spool.shared().lock().end;
    for _ in 0..60 {
        reader.next(end).unwrap();
    }
    acks.ack(reader.position());
    assert!(segments(dir.path()).len() < before / 2 + 1);
    assert_eq!(read(spool.shared()), ((60..100).collect(), 0));
    drop((spool, acks));
    let (spool, mut acks) = open_spool(dir.path());
    assert_eq!(read(spool.shared()), ((60..100).collect(), 0));
    acks.ack(end);
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(spool.shared().metrics.spool_bytes.get(), 0);
    assert!(spool.shared().wait_acked(Instant::now()));
    assert_eq!(spool.append(payloads(100..101)).unwrap(), 100);
    assert!(!spool.shared().wait_acked(Instant::now()));
    assert_eq!(read(spool.shared()), (vec![100], 0));
}

#[test]
fn lost_position_causes_resends_only() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 30);
    let (spool, mut acks) = open_spool(dir.path());
    let end = spool.shared().lock().end;
    acks.ack(end);
    drop((spool, acks));
    let left = segments(dir.path()).pop().unwrap();
    fs::remove_file(dir.path().join(DIR).join("acked")).unwrap();
    let (spool, _) = open_spool(dir.path());
    let (found, lost) = read(spool.shared());
    let first = segment::SegmentHeader::parse(&fs::read(left).unwrap()).unwrap().first;
    assert_eq!((found, lost), ((first..30).collect(), 0));
}

#[test]
fn partial_tail_is_removed_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 6).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut ends = vec![HEADER_BYTES];
    (0..6).for_each(|number| ends.push(ends.last().unwrap() + RECORD_HEAD_BYTES + payload(number).len()));
    assert_eq!(*ends.last().unwrap(), whole.len());
    for bytes in 0..whole.len() {
        fs::write(&path, &whole[..bytes]).unwrap();
        // What is missing was not acknowledged.
        let _ = fs::remove_file(dir.path().join(DIR).join("mark"));
        let kept = ends.iter().filter(|end| **end <= bytes).count().saturating_sub(1) as u64;
        let (spool, _) = open_spool(dir.path());
        assert_eq!(read(spool.shared()), ((0..kept).collect(), 0), "{bytes} bytes");
        assert_eq!(spool.append(payloads(kept..kept + 2)).unwrap(), kept, "{bytes} bytes");
        assert_eq!(read(spool.shared()), ((0..kept + 2).collect(), 0), "{bytes} bytes");
    }
}

#[test]
fn segment_without_header_is_recreated() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig { segment_bytes: 1, ..CONFIG };
    for bytes in 0..=HEADER_BYTES {
        let (spool, _) = Spool::open(dir.path(), config, Arc::default()).unwrap();
        let next = spool.shared().lock().end.number;
        spool.append(payloads(next..next + 1)).unwrap();
        let end = spool.shared().lock().end.byte;
        drop(spool);
        let header = segment::SegmentHeader { log: 1, base: end, first: next + 1 }.to_bytes();
        let mut partial = header[..bytes].to_vec();
        if let Some(last) = partial.last_mut().filter(|_| bytes == HEADER_BYTES) {
            *last ^= 1;
        }
        fs::write(dir.path().join(DIR).join(format!("{end:016x}.log")), partial).unwrap();
        let (spool, _) = Spool::open(dir.path(), config, Arc::default()).unwrap();
        assert_eq!(read(spool.shared()), ((0..next + 1).collect(), 0), "{bytes} bytes");
    }
}

#[test]
fn damage_of_any_byte_loses_at_most_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 40);
    assert!(files.len() >= 3, "{files:?}");
    for path in &files {
        let whole = fs::read(path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(path, &bytes).unwrap();
            let (spool, _) = open_spool(dir.path());
            let (found, lost) = read(spool.shared());
            assert_eq!(found.len() as u64 + lost, 40, "{} byte {at}: {found:?} {lost}", path.display());
            assert!(found.len() >= 39, "{} byte {at}: {found:?}", path.display());
        }
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn missing_or_truncated_segment_is_reported_and_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 40);
    let first = |nth: usize| segment::SegmentHeader::parse(&fs::read(&files[nth]).unwrap()).unwrap().first;
    let (begin, end) = (first(1), first(2));
    let whole = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &whole[..HEADER_BYTES + 30]).unwrap();
    let (spool, _) = open_spool(dir.path());
    let (found, lost) = read(spool.shared());
    assert!(lost >= end - begin - 1 && found.len() as u64 + lost == 40, "{found:?} {lost}");
    drop(spool);
    fs::remove_file(&files[1]).unwrap();
    let (spool, _) = open_spool(dir.path());
    let others = (0..begin).chain(end..40).collect();
    assert_eq!(read(spool.shared()), (others, end - begin));
}

#[test]
fn t5_damage_at_the_end_is_no_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 40);
    let last = files.last().unwrap();
    let whole = fs::read(last).unwrap();
    let first = segment::SegmentHeader::parse(&whole).unwrap().first;
    for cut in [None, Some(whole.len() - 1), Some(HEADER_BYTES + 1), Some(HEADER_BYTES)] {
        let mut bytes = whole.clone();
        match cut {
            None => *bytes.last_mut().unwrap() ^= 1,
            Some(length) => bytes.truncate(length),
        }
        fs::write(last, bytes).unwrap();
        let (spool, _) = open_spool(dir.path());
        let (found, lost) = read(spool.shared());
        assert!(lost > 0 && found.len() as u64 + lost == 40, "{cut:?}: {found:?} {lost}");
        assert!(found.iter().all(|&number| number < 40) && found.len() as u64 >= first, "{cut:?}: {found:?}");
    }
}

#[test]
fn nth_disk_error_loses_and_duplicates_nothing() {
    for times in [1, u64::MAX] {
        for nth in 0..40 {
            check_failure(nth, times);
        }
    }
}

/// Appends while the disk fails `times` times, starting with its n-th call; then continues and reopens.
fn check_failure(nth: u64, times: u64) {
    let dir = tempfile::tempdir().unwrap();
    let disk = SpoolDisk::open(&dir.path().join(DIR)).unwrap();
    let RecoveredLog { mut log, .. } = SpoolLog::open(disk, 150).unwrap();
    *log.disk().fail.lock().unwrap() = Some((nth, times));
    let (mut acknowledged, mut failed) = (0, 0);
    for _ in 0..12 {
        let next = log.end().number;
        match log.append(&records(next..next + 2), 2) {
            Ok(_) => acknowledged = next + 2,
            Err(_) => failed += 1,
        }
        assert_eq!(log.end().number, acknowledged);
    }
    assert!(failed > 0 || nth > 24, "{nth}");
    *log.disk().fail.lock().unwrap() = None;
    let next = log.end().number;
    log.append(&records(next..next + 2), 2).unwrap();
    drop(log);
    let (spool, _) = open_spool(dir.path());
    assert_eq!(read(spool.shared()), ((0..next + 2).collect(), 0), "call {nth}, {times} times");
}

#[test]
fn full_spool_rejects_until_events_are_acked() {
    let dir = tempfile::tempdir().unwrap();
    let one = (RECORD_HEAD_BYTES + payload(0).len()) as u64;
    let config = SpoolConfig { bytes_max: 3 * one, free_bytes_min: 0, segment_bytes: 1 << 20 };
    let (spool, mut acks) = Spool::open(dir.path(), config, Arc::default()).unwrap();
    let append = || {
        let mut payloads = Payloads::default();
        payloads.add(|bytes| bytes.extend(payload(0)));
        spool.append(payloads)
    };
    for number in 0..3 {
        assert_eq!(append().unwrap(), number);
    }
    assert!(matches!(append(), Err(StoreError::Full)));
    assert_eq!(spool.shared().metrics.spool_full.get(), 1);
    let end = spool.shared().lock().end;
    acks.ack(LogPosition { byte: end.byte - 2 * one, number: 1 });
    assert_eq!(append().unwrap(), 3);
    assert_eq!(spool.shared().metrics.spool_full.get(), 0);
    assert!(matches!(append(), Err(StoreError::Full)));
    // A batch larger than the spool is accepted only if it is empty.
    let end = spool.shared().lock().end;
    acks.ack(end);
    let mut large = Payloads::default();
    large.add(|bytes| bytes.resize(10 * one as usize, b'x'));
    assert_eq!(spool.append(large).unwrap(), 4);
    assert!(matches!(append(), Err(StoreError::Full)));
}

#[test]
fn reserved_disk_space_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig { free_bytes_min: u64::MAX, ..CONFIG };
    let (spool, _) = Spool::open(dir.path(), config, Arc::default()).unwrap();
    assert!(matches!(spool.append(payloads(0..1)), Err(StoreError::Full)));
}

#[test]
fn wait_ends_on_append_close_or_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open_spool(dir.path());
    let shared = Arc::clone(spool.shared());
    let begin = shared.acked();
    let far = Instant::now() + Duration::from_secs(600);
    let waits = |at: LogPosition| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || shared.wait_after(at, far))
    };
    let waiting = waits(begin);
    spool.append(payloads(0..1)).unwrap();
    let seen = waiting.join().unwrap();
    assert_eq!((seen.end.number, seen.is_closed, seen.is_deadline_reached), (1, false, false));
    let waiting = waits(seen.end);
    spool.close();
    assert!(waiting.join().unwrap().is_closed);
    assert!(matches!(spool.append(payloads(1..2)), Err(StoreError::ShuttingDown)));
    let pausing = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || shared.pause(far))
    };
    shared.set_deadline(Instant::now());
    assert!(pausing.join().unwrap().is_deadline_reached && shared.is_deadline_reached());
}

#[test]
fn records_longer_than_a_read_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig { bytes_max: 1 << 30, ..CONFIG };
    let (spool, _) = Spool::open(dir.path(), config, Arc::default()).unwrap();
    let sizes = [10, PAYLOAD_BYTES_MAX, 3, (1 << 20) - 16, 1 << 20, 0, 900_000, 900_000];
    for size in sizes {
        let mut payloads = Payloads::default();
        payloads.add(|bytes| bytes.resize(size, b'y'));
        spool.append(payloads).unwrap();
    }
    let mut reader = SpoolReader::open(Arc::clone(spool.shared()), spool.shared().acked()).unwrap();
    let end = spool.shared().lock().end;
    for size in sizes {
        let Some(SpoolEntry::Record { payload, .. }) = reader.next(end).unwrap() else { panic!("{size}") };
        assert_eq!(payload.len(), size);
    }
    assert_eq!(reader.next(end).unwrap(), None);
}

#[test]
fn damage_is_reported_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 5).pop().unwrap();
    let offset = (HEADER_BYTES + RECORD_HEAD_BYTES + payload(0).len()) as u64;
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"\xff", offset + 20).unwrap();
    let (spool, _) = open_spool(dir.path());
    let mut reader = SpoolReader::open(Arc::clone(spool.shared()), spool.shared().acked()).unwrap();
    let end = spool.shared().lock().end;
    assert!(matches!(reader.next(end).unwrap(), Some(SpoolEntry::Record { number: 0, .. })));
    let Some(SpoolEntry::Damaged(damage)) = reader.next(end).unwrap() else { panic!("no damage") };
    assert_eq!((damage.offset, damage.lost), (offset, 1));
    assert_eq!(damage.length as usize, RECORD_HEAD_BYTES + payload(1).len());
    assert_eq!(damage.bytes.len() as u64, damage.length);
    assert_eq!(damage.file, path.file_name().unwrap().to_str().unwrap());
    assert!(matches!(reader.next(end).unwrap(), Some(SpoolEntry::Record { number: 2, .. })));
}
