//! Limits: values below and above each of them.

use super::*;

#[test]
fn a_silent_stream_ends_as_idle_where_that_is_asked_for() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &["--idle-timeout", "1s"]);
    let content = generated::pcap(&mut Random::new("idle"), 3_000).bytes;
    let output = server.output().to_owned();
    let began = Instant::now();
    let mut sender = Sender::open(server.addr(), "idle", Handshake::Newline);
    // The pauses are shorter than the timeout, so the stream continues.
    for chunk in content.chunks(content.len() / 6) {
        sender.send(chunk);
        thread::sleep(Duration::from_millis(300));
    }
    let mut no_content = Sender::open(server.addr(), "no-content", Handshake::Newline);
    sender.wait_close();
    no_content.wait_close();
    assert!(began.elapsed() > Duration::from_secs(2));
    wait_connections(&output, "idle", 1);
    wait_connections(&output, "no-content", 1);
    assert_eq!(end_reason(&output, "idle"), Some(EndReason::Idle));
    assert_eq!(end_reason(&output, "no-content"), Some(EndReason::Idle));
    server.term();
    assert_whole(&output, "idle", &content);
}

#[test]
fn a_stream_has_so_many_bytes_at_most() {
    let work = Workdir::new();
    let content = generated::pcap(&mut Random::new("stream bytes"), 300_000).bytes;
    let limit = content.len();
    let mut server = Server::start(
        &work.join("out"),
        &["--stream-bytes-max", &limit.to_string(), "--admin-listen", "127.0.0.1:0"],
    );
    let (addr, output) = (server.addr(), server.output().to_owned());
    let over = [&content[..], b"x"].concat();
    for (name, sent) in [("under", &content[..limit - 1]), ("exact", &content), ("over", &over)] {
        let mut sender = Sender::open(addr, name, Handshake::Newline);
        sender.send(sent);
        if name == "over" {
            sender.wait_close();
        } else {
            sender.finish();
        }
        wait_connections(&output, name, 1);
        let expected = if name == "over" { EndReason::Limit } else { EndReason::Eof };
        assert_eq!(end_reason(&output, name), Some(expected), "{name}");
        assert_whole(&output, name, &sent[..sent.len().min(limit)]);
    }
    assert_eq!(status::metric(server.status_addr(), "streams_ended_total{reason=\"limit\"}"), 1);
    // A name at the limit without an end: the end may still arrive.
    let mut waits = Sender::open(addr, "waits", Handshake::Newline);
    waits.send(&content);
    wait_until(DEADLINE, "all of it", || {
        fs::metadata(output.join("waits")).is_ok_and(|metadata| metadata.len() == limit as u64)
    });
    server.term();
    assert_eq!(end_reason(&output, "waits"), Some(EndReason::Shutdown));
}

#[test]
fn so_many_streams_at_once() {
    const MAX: usize = 5;
    let work = Workdir::new();
    let flags = ["--streams-max", &MAX.to_string(), "--admin-listen", "127.0.0.1:0"];
    let mut server = Server::start(&work.join("out"), &flags);
    let (addr, status_addr) = (server.addr(), server.status_addr());
    let content = generated::pcap(&mut Random::new("streams"), 3_000).bytes;
    let names: Vec<String> = (0..=MAX).map(|number| format!("stream-{number}")).collect();
    let mut open: Vec<Sender> =
        names[..MAX].iter().map(|name| Sender::open(addr, name, Handshake::Newline)).collect();
    open.iter_mut().for_each(|sender| sender.send(&content[..1_000]));
    wait_until(DEADLINE, "all of them", || status::metric(status_addr, "streams_open") == MAX as u64);
    let began = Instant::now();
    for _ in 0..30 {
        Sender::connect(addr).wait_close();
    }
    assert_eq!(
        status::metric(status_addr, "connections_rejected_total{listener=\"tcp\",reason=\"limit_reached\"}"),
        30
    );
    let seconds = began.elapsed().as_secs() as usize;
    // After one stream has ended, the next one is accepted.
    let mut first = open.remove(0);
    first.send(&content[1_000..]);
    first.finish();
    let open_metric = "connections_open{listener=\"tcp\"}";
    wait_until(DEADLINE, "room", || status::metric(status_addr, open_metric) < MAX as u64);
    open.push(Sender::open(addr, &names[MAX], Handshake::Newline));
    open[MAX - 1].send(&content[..1_000]);
    for mut sender in open {
        sender.send(&content[1_000..]);
        sender.finish();
    }
    let output = server.output().to_owned();
    let stderr = server.term();
    let warned = stderr
        .lines()
        .filter(|line| line.contains("connection_rejected listener=tcp reason=limit_reached"))
        .count();
    assert!((1..=seconds + 2).contains(&warned), "{warned} warnings in {seconds} s");
    names.iter().for_each(|name| assert_whole(&output, name, &content));
    assert_only(&output, names.iter().map(|name| &**name));
}

/// Returns a packet of 200,000 bytes of which 100,000 are present.
fn begun_packet(random: &mut Random) -> (Vec<u8>, usize) {
    let mut capture = generated::pcap(random, 1_000).bytes;
    let packet = random.bytes(200_000);
    let len = (packet.len() as u32).to_le_bytes();
    capture.extend_from_slice(&[&[0; 8], &len[..], &len[..], &packet].concat());
    let cut = capture.len() - 100_000;
    (capture, cut)
}

#[test]
fn begun_packets_take_so_much_memory_at_most() {
    const STREAMS: u64 = 40;
    const MAX: u64 = 1_000_000;
    let work = Workdir::new();
    let flags = ["--partial-packet-memory", &MAX.to_string(), "--admin-listen", "127.0.0.1:0"];
    let mut server = Server::start(&work.join("out"), &flags);
    let (addr, status_addr, mut random) = (server.addr(), server.status_addr(), Random::new("pending"));
    let captures: Vec<_> = (0..STREAMS).map(|_| begun_packet(&mut random)).collect();
    let mut senders: Vec<Sender> = Vec::new();
    let mut sent = 0;
    for (number, (capture, cut)) in captures.iter().enumerate() {
        let mut sender = Sender::open(addr, format!("pending-{number}"), Handshake::Newline);
        sender.send(&capture[..*cut]);
        sent += *cut as u64;
        senders.push(sender);
        if (number + 1) as u64 * 100_000 < MAX {
            wait_until(DEADLINE, "the bytes", || status::metric(status_addr, "received_bytes_total") == sent);
            assert_eq!(status::metric(status_addr, "partial_packets_flushed_total"), 0, "below the bound");
        }
    }
    let through = || status::metric(status_addr, "partial_packets_flushed_total");
    wait_until(DEADLINE, "relief", || through() >= STREAMS - MAX / 100_000);
    wait_until(DEADLINE, "the bound", || status::metric(status_addr, "partial_packet_bytes") <= MAX);
    for (mut sender, (capture, cut)) in senders.into_iter().zip(&captures) {
        sender.send(&capture[*cut..]);
        sender.finish();
    }
    let output = server.output().to_owned();
    server.term();
    for (number, (capture, _)) in captures.iter().enumerate() {
        assert_whole(&output, &format!("pending-{number}"), capture);
    }
}

/// Sends to `count` new streams and keeps them open.
fn open_streams(addr: SocketAddr, prefix: &str, count: usize) -> Vec<Sender> {
    (0..count).map(|number| Sender::open(addr, format!("{prefix}-{number}"), Handshake::Newline)).collect()
}

#[test]
fn more_streams_than_descriptors_for_their_files() {
    // The process reserves 128 descriptors. 900 streams leave the rest for files.
    const STREAMS: usize = 900;
    let work = Workdir::new();
    let output = work.join("out");
    let flags = ["--admin-listen", "127.0.0.1:0", "--peer-streams-max", "1000"];
    let (mut process, addr) = wrapped::start(&["prlimit", "--nofile=1200:1200"], &output, &flags);
    let status_addr = wrapped::listening(&mut process, "admin");
    let Generated { bytes: content, ends } = generated::pcap(&mut Random::new("descriptors"), 4_000);
    let mut first = open_streams(addr, "first", STREAMS);
    for piece in ends.windows(2) {
        first.iter_mut().for_each(|sender| sender.send(&content[piece[0]..piece[1]]));
    }
    wait_until(DEADLINE, "all bytes in the files", || {
        status::metric(status_addr, "written_bytes_total") == (STREAMS * content.len()) as u64
    });
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count();
    eprintln!("descriptors: {STREAMS} streams and their files in {descriptors}");
    assert!(descriptors <= 1200 - 64, "{descriptors} of 1,200 descriptors are open");
    // All streams end at once, and as many new ones start, while the files of the first are being closed.
    first.iter_mut().for_each(Sender::half_close);
    first.iter_mut().for_each(|sender| assert!(sender.wait_close()));
    wait_until(DEADLINE, "room", || status::metric(status_addr, "streams_open") == 0);
    let mut second = open_streams(addr, "second", STREAMS);
    second.iter_mut().for_each(|sender| sender.send(&content));
    for number in 0..STREAMS {
        wait_connections(&output, &format!("first-{number}"), 1);
    }
    second.iter_mut().for_each(Sender::half_close);
    second.iter_mut().for_each(|sender| assert!(sender.wait_close()));
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
    let stderr = process.stderr();
    assert!(!stderr.contains("ERROR"), "it ran out of something for good");
    for number in 0..STREAMS {
        assert_whole(&output, &format!("first-{number}"), &content);
        assert_whole(&output, &format!("second-{number}"), &content);
    }
}
