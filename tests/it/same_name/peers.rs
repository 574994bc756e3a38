//! The first stream of the name is still open: its peer is alive, is gone, or has just ended.

use super::*;
use crate::support::netns::Netns;
use crate::support::wait_for;

#[test]
fn beside_one_that_lives_a_part_of_its_own() {
    let mut scene = Scene::new("lives");
    let content = scene.capture(50_000);
    let (start, rest) = half(&content);
    let mut first = scene.open();
    first.send(start);
    wait_until(DEADLINE, "the first stream", || scene.output().join(NAME).exists());
    let began = Instant::now();
    let mut second = scene.open();
    second.send(&content);
    wait_until(DEADLINE, "the second part", || scene.output().join(NAME_2).exists());
    let waited = began.elapsed();
    eprintln!("beside: a part of its own after {waited:?}");
    assert!(
        waited >= SAME_NAME_TIMEOUT - Duration::from_millis(200)
            && waited < SAME_NAME_TIMEOUT + Duration::from_secs(10)
    );
    first.send(rest);
    first.finish();
    second.finish();
    wait_connections(scene.output(), NAME, 1);
    scene.end(&[(NAME, &content), (NAME_2, &content)]);
}

#[test]
fn the_end_of_the_first_may_be_under_way() {
    let mut scene = Scene::new("under way");
    let content = scene.capture(50_000);
    let (start, rest) = half(&content);
    let mut first = scene.open();
    first.send(start);
    wait_until(DEADLINE, "the first stream", || scene.output().join(NAME).exists());
    let mut second = scene.open();
    second.send(rest);
    // The second stream waits; then the first one ends.
    thread::sleep(Duration::from_millis(500));
    first.finish();
    second.finish();
    wait_connections(scene.output(), NAME, 2);
    scene.end(&[(NAME, &content)]);
}

#[test]
fn a_reset_is_an_end() {
    let mut scene = Scene::new("reset");
    let content = scene.capture(50_000);
    let mut first = scene.open();
    first.send(&content[..20_000]);
    wait_until(DEADLINE, "the first stream", || {
        scene.output().join(NAME).metadata().is_ok_and(|metadata| metadata.len() > 0)
    });
    first.reset();
    scene.send(&content, NAME, 2);
    let connections = manifest(scene.output(), NAME).unwrap().connections;
    assert_eq!(connections[0].end_reason, Some(EndReason::Reset));
    scene.end(&[(NAME, &content)]);
}

/// The machine of the sender or its network fails without a FIN. The sender comes back from another
/// address and re-sends everything.
#[test]
fn a_peer_that_is_gone_is_found_in_time() {
    let [ours, theirs] = Netns::pair(["192.0.2.1", "192.0.2.2"]);
    let mut random = Random::new("gone");
    let content = generated::pcap(&mut random, 50_000).bytes;
    let work = Workdir::new();
    let mut server = ours.run(|| Server::start(&work.join("out"), &["--listen", "192.0.2.1:0"]));
    let addr: SocketAddr = server.process().wait_line(DEADLINE, "the second listener", |line| {
        let (_, rest) = line.split_once("listening addr=192.0.2.1")?;
        format!("192.0.2.1{}", rest.split(' ').next()?).parse().ok()
    });
    let mut first = theirs.run(|| Sender::open(addr, NAME, Handshake::Newline));
    first.send(&content[..20_000]);
    let output = server.output().to_owned();
    let stored = wait_for(DEADLINE, "the first stream", || {
        fs::read(output.join(NAME)).ok().filter(|stored| stored.len() > 15_000)
    });
    assert!(content.starts_with(&stored));
    theirs.cut();

    let began = Instant::now();
    let mut second = ours.run(|| Sender::open(addr, NAME, Handshake::Newline));
    second.send(&content);
    second.finish();
    // The sender has another address now, so the stored bytes are compared, and all of its bytes get a part.
    let second = wait_connections(&output, NAME_2, 1);
    eprintln!("gone: found after {:?}", began.elapsed());
    let first = manifest(&output, NAME).unwrap();
    assert_eq!(first.connections[0].end_reason, Some(EndReason::Reset));
    let repeats = second.repeats.expect("the first stream had ended");
    assert_eq!((&*repeats.file, repeats.at), (NAME, first.bytes));
    server.term();
    assert_whole(&output, NAME_2, &content);
    assert_only(&output, [NAME, NAME_2]);
}
