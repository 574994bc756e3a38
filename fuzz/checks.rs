//! What must hold for any input. The fuzz targets call these, and so does `cargo test` on testdata/fuzz.

use lea::cc::frame::capture::{Follower, Summary};
use lea::cc::frame::handshake::{Event, Verdict, decide, starts_capture};
use lea::cc::frame::name::{fields, file_name, name_of, part_file_name, part_of};

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
