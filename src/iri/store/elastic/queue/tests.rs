//! The queue: what is acknowledged comes back, whatever the disk did, wherever a crash was, whatever bit turned.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use super::log::{Log, Opened};
use super::segment::{self, HEADER_BYTES, RECORD_HEAD_BYTES};
use super::*;

const CONFIG: QueueConfig = QueueConfig { bytes_max: 1 << 20, free_bytes_min: 0, segment_bytes: 400 };

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
    numbers.for_each(|number| segment::push(&mut bytes, number, &payload(number)));
    bytes
}

/// What a reader finds from the confirmed position on: numbers of records, and how many are told to be missing.
fn read(shared: &Arc<Shared>) -> (Vec<u64>, u64) {
    let (mut found, mut lost) = (Vec::new(), 0);
    let mut reader = Reader::open(Arc::clone(shared), shared.confirmed()).unwrap();
    let end = shared.lock().end;
    while let Some(next) = reader.next(end).unwrap() {
        match next {
            Next::Record { number, payload: found_payload } => {
                assert_eq!(found_payload, payload(number));
                found.push(number);
            }
            Next::Damaged(damage) => lost += damage.lost,
        }
    }
    assert_eq!(reader.position().number, end.number);
    (found, lost)
}

fn open_queue(dir: &Path) -> (Queue, Confirmer) {
    Queue::open(dir, CONFIG, Arc::default()).unwrap()
}

/// A queue with so many records in calls of three, and its segments' files.
fn filled(dir: &Path, count: u64) -> Vec<PathBuf> {
    let (queue, _) = open_queue(dir);
    for first in (0..count).step_by(3) {
        assert_eq!(queue.append(payloads(first..(first + 3).min(count))).unwrap(), first);
    }
    drop(queue);
    segments(dir)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let bases = Disk::open(&dir.join(DIR)).unwrap().segments().unwrap();
    bases.into_iter().map(|base| dir.join(DIR).join(format!("{base:016x}.log"))).collect()
}

#[test]
fn what_is_appended_comes_back_over_many_segments_and_starts() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 100);
    assert!(files.len() > 5, "{files:?}");
    let (queue, _) = open_queue(dir.path());
    assert_eq!(read(queue.shared()), ((0..100).collect(), 0));
    assert_eq!(queue.append(payloads(100..103)).unwrap(), 100);
    assert_eq!(read(queue.shared()), ((0..103).collect(), 0));
    assert_eq!(queue.shared().counters.queue_events.get(), 103);
}

#[test]
fn many_callers_at_once_each_get_their_own_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { segment_bytes: 4_000, ..CONFIG };
    let (queue, _) = Queue::open(dir.path(), config, Arc::default()).unwrap();
    let mut firsts: Vec<u64> = std::thread::scope(|scope| {
        let call = || (0..50).map(|_| queue.append(payloads(0..2)).unwrap()).collect::<Vec<_>>();
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    firsts.sort_unstable();
    assert_eq!(firsts, (0..400).map(|nth| 2 * nth).collect::<Vec<_>>());
}

#[test]
fn a_log_keeps_its_id_and_another_has_another() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = |dir: &Path| open_queue(dir).0.shared().log();
    let first = id(one.path());
    filled(one.path(), 40);
    assert_eq!(id(one.path()), first);
    assert_ne!(id(other.path()), first);
}

#[test]
fn confirmed_segments_go_and_the_rest_is_read_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path(), 100).len();
    let (queue, mut confirmer) = open_queue(dir.path());
    let mut reader = Reader::open(Arc::clone(queue.shared()), queue.shared().confirmed()).unwrap();
    let end = queue.shared().lock().end;
    for _ in 0..60 {
        reader.next(end).unwrap();
    }
    confirmer.confirm(reader.position());
    assert!(segments(dir.path()).len() < before / 2 + 1);
    assert_eq!(read(queue.shared()), ((60..100).collect(), 0));
    drop((queue, confirmer));
    let (queue, mut confirmer) = open_queue(dir.path());
    assert_eq!(read(queue.shared()), ((60..100).collect(), 0));
    confirmer.confirm(end);
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(queue.shared().counters.queue_bytes.get(), 0);
    assert!(queue.shared().wait_confirmed(Instant::now()));
    assert_eq!(queue.append(payloads(100..101)).unwrap(), 100);
    assert!(!queue.shared().wait_confirmed(Instant::now()));
    assert_eq!(read(queue.shared()), (vec![100], 0));
}

#[test]
fn a_lost_position_sends_again_and_never_too_little() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 30);
    let (queue, mut confirmer) = open_queue(dir.path());
    let end = queue.shared().lock().end;
    confirmer.confirm(end);
    drop((queue, confirmer));
    let left = segments(dir.path()).pop().unwrap();
    fs::remove_file(dir.path().join(DIR).join("confirmed")).unwrap();
    let (queue, _) = open_queue(dir.path());
    let (found, lost) = read(queue.shared());
    let first = segment::Header::read(&fs::read(left).unwrap()).unwrap().first;
    assert_eq!((found, lost), ((first..30).collect(), 0));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 6).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut ends = vec![HEADER_BYTES];
    (0..6).for_each(|number| ends.push(ends.last().unwrap() + RECORD_HEAD_BYTES + payload(number).len()));
    assert_eq!(*ends.last().unwrap(), whole.len());
    for bytes in 0..whole.len() {
        fs::write(&path, &whole[..bytes]).unwrap();
        let kept = ends.iter().filter(|end| **end <= bytes).count().saturating_sub(1) as u64;
        let (queue, _) = open_queue(dir.path());
        assert_eq!(read(queue.shared()), ((0..kept).collect(), 0), "{bytes} bytes");
        assert_eq!(queue.append(payloads(kept..kept + 2)).unwrap(), kept, "{bytes} bytes");
        assert_eq!(read(queue.shared()), ((0..kept + 2).collect(), 0), "{bytes} bytes");
    }
}

#[test]
fn a_segment_that_a_crash_left_without_a_header_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { segment_bytes: 1, ..CONFIG };
    for bytes in 0..=HEADER_BYTES {
        let (queue, _) = Queue::open(dir.path(), config, Arc::default()).unwrap();
        let next = queue.shared().lock().end.number;
        queue.append(payloads(next..next + 1)).unwrap();
        let end = queue.shared().lock().end.byte;
        drop(queue);
        let header = segment::Header { log: 1, base: end, first: next + 1 }.to_bytes();
        let mut begun = header[..bytes].to_vec();
        if let Some(last) = begun.last_mut().filter(|_| bytes == HEADER_BYTES) {
            *last ^= 1;
        }
        fs::write(dir.path().join(DIR).join(format!("{end:016x}.log")), begun).unwrap();
        let (queue, _) = Queue::open(dir.path(), config, Arc::default()).unwrap();
        assert_eq!(read(queue.shared()), ((0..next + 1).collect(), 0), "{bytes} bytes");
    }
}

#[test]
fn whatever_byte_is_damaged_all_other_events_come() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 40);
    assert!(files.len() >= 3, "{files:?}");
    for (nth, path) in files.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        let is_last = nth + 1 == files.len();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(path, &bytes).unwrap();
            let (queue, _) = open_queue(dir.path());
            let (found, lost) = read(queue.shared());
            // The last record of all cannot be told from one that was never finished.
            let all = found.len() as u64 + lost;
            assert!(all == 40 || (is_last && all == 39), "{} byte {at}: {found:?} {lost}", path.display());
            assert!(found.len() >= 39, "{} byte {at}: {found:?}", path.display());
        }
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn a_segment_that_is_gone_or_cut_is_told_and_stepped_over() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 40);
    let first = |nth: usize| segment::Header::read(&fs::read(&files[nth]).unwrap()).unwrap().first;
    let (begin, end) = (first(1), first(2));
    let whole = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &whole[..HEADER_BYTES + 30]).unwrap();
    let (queue, _) = open_queue(dir.path());
    let (found, lost) = read(queue.shared());
    assert!(lost >= end - begin - 1 && found.len() as u64 + lost == 40, "{found:?} {lost}");
    drop(queue);
    fs::remove_file(&files[1]).unwrap();
    let (queue, _) = open_queue(dir.path());
    let others = (0..begin).chain(end..40).collect();
    assert_eq!(read(queue.shared()), (others, end - begin));
}

#[test]
fn the_nth_call_to_the_disk_that_fails_loses_nothing_and_doubles_nothing() {
    for times in [1, u64::MAX] {
        for nth in 0..40 {
            check_failure(nth, times);
        }
    }
}

/// Appends while the disk fails from its n-th call on, so many times; then goes on, and starts again.
fn check_failure(nth: u64, times: u64) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&dir.path().join(DIR)).unwrap();
    let Opened { mut log, .. } = Log::open(disk, 150).unwrap();
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
    let (queue, _) = open_queue(dir.path());
    assert_eq!(read(queue.shared()), ((0..next + 2).collect(), 0), "call {nth}, {times} times");
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_events_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let one = (RECORD_HEAD_BYTES + payload(0).len()) as u64;
    let config = QueueConfig { bytes_max: 3 * one, free_bytes_min: 0, segment_bytes: 1 << 20 };
    let (queue, mut confirmer) = Queue::open(dir.path(), config, Arc::default()).unwrap();
    let append = || {
        let mut payloads = Payloads::default();
        payloads.add(|bytes| bytes.extend(payload(0)));
        queue.append(payloads)
    };
    for number in 0..3 {
        assert_eq!(append().unwrap(), number);
    }
    assert!(matches!(append(), Err(StoreError::Full)));
    assert_eq!(queue.shared().counters.queue_full.get(), 1);
    let end = queue.shared().lock().end;
    confirmer.confirm(Position { byte: end.byte - 2 * one, number: 1 });
    assert_eq!(append().unwrap(), 3);
    assert_eq!(queue.shared().counters.queue_full.get(), 0);
    assert!(matches!(append(), Err(StoreError::Full)));
    // Larger than the queue: alone, when it is empty.
    let end = queue.shared().lock().end;
    confirmer.confirm(end);
    let mut large = Payloads::default();
    large.add(|bytes| bytes.resize(10 * one as usize, b'x'));
    assert_eq!(queue.append(large).unwrap(), 4);
    assert!(matches!(append(), Err(StoreError::Full)));
}

#[test]
fn room_stays_free_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { free_bytes_min: u64::MAX, ..CONFIG };
    let (queue, _) = Queue::open(dir.path(), config, Arc::default()).unwrap();
    assert!(matches!(queue.append(payloads(0..1)), Err(StoreError::Full)));
}

#[test]
fn a_wait_ends_with_an_event_with_the_close_or_with_giving_up() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open_queue(dir.path());
    let shared = Arc::clone(queue.shared());
    let begin = shared.confirmed();
    let far = Instant::now() + Duration::from_secs(600);
    let waits = |at: Position| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || shared.wait_behind(at, far))
    };
    let waiting = waits(begin);
    queue.append(payloads(0..1)).unwrap();
    let seen = waiting.join().unwrap();
    assert_eq!((seen.end.number, seen.is_closed, seen.is_given_up), (1, false, false));
    let waiting = waits(seen.end);
    queue.close();
    assert!(waiting.join().unwrap().is_closed);
    assert!(matches!(queue.append(payloads(1..2)), Err(StoreError::Stopping)));
    let pausing = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || shared.pause(far))
    };
    shared.give_up_at(Instant::now());
    assert!(pausing.join().unwrap().is_given_up && shared.is_given_up());
}

#[test]
fn what_is_longer_than_a_read_comes_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = QueueConfig { bytes_max: 1 << 30, ..CONFIG };
    let (queue, _) = Queue::open(dir.path(), config, Arc::default()).unwrap();
    let sizes = [10, PAYLOAD_BYTES_MAX, 3, (1 << 20) - 16, 1 << 20, 0, 900_000, 900_000];
    for size in sizes {
        let mut payloads = Payloads::default();
        payloads.add(|bytes| bytes.resize(size, b'y'));
        queue.append(payloads).unwrap();
    }
    let mut reader = Reader::open(Arc::clone(queue.shared()), queue.shared().confirmed()).unwrap();
    let end = queue.shared().lock().end;
    for size in sizes {
        let Some(Next::Record { payload, .. }) = reader.next(end).unwrap() else { panic!("{size}") };
        assert_eq!(payload.len(), size);
    }
    assert_eq!(reader.next(end).unwrap(), None);
}

#[test]
fn damage_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path(), 5).pop().unwrap();
    let offset = (HEADER_BYTES + RECORD_HEAD_BYTES + payload(0).len()) as u64;
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"\xff", offset + 20).unwrap();
    let (queue, _) = open_queue(dir.path());
    let mut reader = Reader::open(Arc::clone(queue.shared()), queue.shared().confirmed()).unwrap();
    let end = queue.shared().lock().end;
    assert!(matches!(reader.next(end).unwrap(), Some(Next::Record { number: 0, .. })));
    let Some(Next::Damaged(damage)) = reader.next(end).unwrap() else { panic!("no damage") };
    assert_eq!((damage.offset, damage.lost), (offset, 1));
    assert_eq!(damage.length as usize, RECORD_HEAD_BYTES + payload(1).len());
    assert_eq!(damage.bytes.len() as u64, damage.length);
    assert_eq!(damage.file, path.file_name().unwrap().to_str().unwrap());
    assert!(matches!(reader.next(end).unwrap(), Some(Next::Record { number: 2, .. })));
}
