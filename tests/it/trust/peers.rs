//! Limits per peer on the stream port, idle limits, and streams without a name.

use super::*;

fn start(flags: &[&str]) -> (Workdir, Server, SocketAddr) {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &[&["--admin-listen", "127.0.0.1:0"], flags].concat());
    let admin = server.status_addr();
    (work, server, admin)
}

#[track_caller]
fn wait_rejected(admin: SocketAddr, reason: &str, count: u64) {
    let name = format!("connections_rejected_total{{listener=\"tcp\",reason=\"{reason}\"}}");
    wait_until(DEADLINE, &format!("{count} of {name}"), || status::metric(admin, &name) == count);
}

#[test]
fn one_peer_does_not_take_the_place_of_others() {
    let (_work, server, admin) = start(&["--peer-streams-max", "2"]);
    let output = server.output().to_owned();
    let mut held: Vec<Sender> = (0..2)
        .map(|number| Sender::open(server.addr(), format!("held-{number}"), Handshake::Newline))
        .collect();
    wait_until(DEADLINE, "two streams", || status::metric(admin, "streams_open") == 2);
    Sender::open(server.addr(), "third", Handshake::Newline).wait_close();
    wait_rejected(admin, "peer_limit_reached", 1);
    send_from("127.0.0.9", server.addr(), "other", &capture());
    wait_closed(&output, "other");
    held.pop().unwrap().finish();
    wait_until(DEADLINE, "one stream", || status::metric(admin, "streams_open") == 1);
    send_from("127.0.0.1", server.addr(), "fourth", &capture());
    wait_closed(&output, "fourth");
    server.term();
}

#[test]
fn new_names_of_a_peer_are_limited() {
    let (_work, server, admin) = start(&["--peer-names-max", "2"]);
    let output = server.output().to_owned();
    for name in ["first", "second"] {
        send_from("127.0.0.1", server.addr(), name, &capture()[..700]);
        wait_closed(&output, name);
    }
    send_from("127.0.0.1", server.addr(), "third", &capture());
    wait_rejected(admin, "too_many_names", 1);
    // Its streams go on, and others have names.
    send_from("127.0.0.1", server.addr(), "first", &capture()[700..]);
    wait_connections(&output, "first", 2);
    send_from("127.0.0.9", server.addr(), "fourth", &capture());
    wait_closed(&output, "fourth");
    assert_eq!(status::metric(admin, "lost_bytes_total"), 0, "a rejected stream is not a loss");
    server.term();
    assert_whole(&output, "first", &capture());
    assert_only(&output, ["first", "second", "fourth"]);
}

#[test]
fn the_rate_of_a_peer_is_limited() {
    let (_work, server, _) = start(&["--peer-rate-max", "100K"]);
    let output = server.output().to_owned();
    let content = vec![b'x'; 200 << 10];
    let began = std::time::Instant::now();
    let mut sender = Sender::open(server.addr(), "slow", Handshake::Newline);
    sender.send_chunks(&content, 16 << 10);
    sender.finish();
    wait_closed(&output, "slow");
    // The last bytes are read before their time is over.
    assert!(began.elapsed().as_millis() > 300, "{:?}", began.elapsed());
    server.term();
    assert_whole(&output, "slow", &content);
}

#[test]
fn a_name_without_content_does_not_hold_its_place() {
    let (_work, server, _) = start(&["--content-timeout", "50ms"]);
    let output = server.output().to_owned();
    let mut idle = Sender::open(server.addr(), "idle", Handshake::Newline);
    idle.wait_close();
    assert_eq!(wait_closed(&output, "idle").end_reason, Some(EndReason::Idle));
    server.term();
}

/// Sends content without a name. Returns the port of the sender.
fn send_nameless(addr: SocketAddr, content: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(content).unwrap();
    stream.local_addr().unwrap().port()
}

#[test]
fn a_stream_without_a_name_gets_one() {
    let (_work, server, _) = start(&["--unnamed", "{peer}-{port}.pcap"]);
    let output = server.output().to_owned();
    let port = send_nameless(server.addr(), &capture());
    let name = format!("127.0.0.1-{port}.pcap");
    wait_closed(&output, &name);
    let stderr = server.term();
    let expected = "note=\"expected the name of the stream, then the capture\"";
    assert!(stderr.contains(&format!("file={name} {expected}")), "{stderr}");
    assert_whole(&output, &name, &capture());

    let (_work, server, _) = start(&[]);
    let output = server.output().to_owned();
    send_nameless(server.addr(), &capture());
    wait_closed(&output, "%empty");
    assert!(server.term().contains(expected));
}
