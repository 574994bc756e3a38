//! `lea serve-events` is killed (SIGKILL) at random moments: while events arrive over all protocols, and
//! while it starts. Senders re-send unacknowledged events, as shippers do. After each kill all acknowledged
//! events are stored once. Unacknowledged ones are stored once or not at all, a bulk request as a whole.
//! There are no other events.

mod check;
mod sender;
mod stream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sender::{Sender, Way};
use stream::{Kind, Stream};

use crate::support::{Events, Random, Workdir, long};

/// The pattern that stores the numbers in syslog lines in a field, as in other events.
const CONFIG: &str = r#"{"parameters":{"events":{"patterns":["sender %{INT:sender:int} n %{INT:n:int}$"]}}}"#;

/// Events before the first kill. With a few more the store writes its first segment to disk.
const FILLED: u64 = 32_000;

/// On a slow machine a kill does not wait longer for its moment.
const LOAD_MAX: Duration = Duration::from_secs(5);

/// When the server is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While events arrive.
    Load,
    /// While it starts or shortly after, without senders.
    Start,
}

const MOMENTS: [Moment; 5] = [Moment::Load, Moment::Load, Moment::Start, Moment::Load, Moment::Load];

#[test]
fn acknowledged_events_are_there_once_after_kills() {
    let rounds = if long() { 200 } else { 10 };
    let mut random = Random::new("events_crash");
    let work = Workdir::new();
    let config = work.write("config.json", CONFIG);
    let flags = ["--config", config.to_str().unwrap(), "--lines", "0", "--syslog", "tcp:127.0.0.1:0"];
    let mut server = Events::start(&work.join("out"), &flags);
    let mut senders: Vec<Sender> =
        (0..).zip(Way::ALL).map(|(no, way)| Sender::new(no, way, Random::with_seed(random.next()))).collect();
    let mut streams: Vec<Stream> =
        (100..).zip([Kind::Lines, Kind::Syslog]).map(|(no, kind)| Stream::new(no, kind)).collect();
    senders[0].fill(&server, FILLED);
    let mut answered = 0;
    for round in 0..rounds {
        let moment = MOMENTS[round % MOMENTS.len()];
        let started = Instant::now();
        match moment {
            Moment::Load => answered += kill_under_load(&mut server, &mut senders, &mut streams, &mut random),
            Moment::Start => {
                server.kill9();
                let mut process = server.begin();
                thread::sleep(Duration::from_millis(random.below(80)));
                process.kill();
            }
        }
        server.restart();
        let (killed, started) = (started.elapsed(), Instant::now());
        senders.iter_mut().for_each(|sender| sender.check_new(&server));
        streams.iter_mut().for_each(|stream| stream.check_new(&server));
        let total = check_all_ways(&server, &senders, &streams);
        eprintln!(
            "events_crash: round {round} {moment:?} {killed:?}, {total} events, checked in {:?}",
            started.elapsed()
        );
    }
    // Unacknowledged events are sent once more.
    senders.iter_mut().for_each(|sender| sender.finish(&server));
    senders.iter().for_each(|sender| sender.check(&server, 0));
    let total = check_all_ways(&server, &senders, &streams);
    let segments = check::segments(server.output());
    eprintln!("events_crash: {total} events, {segments} segments made, {}", sender::told(&senders));
    assert!(segments > 0, "no kill has had a segment on the disk to deal with");
    assert!(answered >= rounds as u64, "the server was killed before it had done anything");
    // The same after a regular shutdown.
    let output = server.output().to_owned();
    server.term();
    let server = Events::start(&output, &flags);
    assert_eq!(check_all_ways(&server, &senders, &streams), total);
    server.term();
}

/// Runs all senders and kills the server meanwhile. Returns the number of answered requests.
fn kill_under_load(
    server: &mut Events,
    senders: &mut [Sender],
    streams: &mut [Stream],
    random: &mut Random,
) -> u64 {
    // Few requests are preferred; many let the store grow. The extra time is not a multiple of the duration
    // of a request.
    let requests_max = [5, 40, 160][random.below(3) as usize];
    let requests = random.below(requests_max);
    let time = Duration::from_millis(random.below(20));
    let http = server.http();
    let addrs: Vec<_> = streams.iter().map(|stream| server.addr(stream.listener())).collect();
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        let acknowledged = &acknowledged;
        for sender in senders {
            scope.spawn(move || sender.send_until_gone(http, acknowledged));
        }
        for (stream, addr) in streams.iter_mut().zip(addrs) {
            scope.spawn(move || stream.send_until_gone(addr, http));
        }
        let begun = Instant::now();
        while acknowledged.load(Ordering::Relaxed) < requests && begun.elapsed() < LOAD_MAX {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(time);
        server.kill9();
    });
    acknowledged.into_inner()
}

/// Counts all events with each kind of query and in the file. Returns the number.
fn check_all_ways(server: &Events, senders: &[Sender], streams: &[Stream]) -> u64 {
    let mut expected: Vec<(u64, u64)> = senders.iter().map(|sender| (sender.no, sender.total())).collect();
    expected.extend(streams.iter().map(|stream| (stream.no, stream.total())));
    check::totals(server, &expected);
    let own_ids = senders.iter().filter(|sender| sender.way.has_own_ids()).map(Sender::total).sum();
    let total = expected.iter().map(|(_, count)| count).sum();
    check::file(server.output(), total, own_ids);
    total
}
