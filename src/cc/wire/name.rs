//! Stream names (docs/protocol.md, section 1): their fields, and the file name derived from a stream name.
//!
//! Invariant: [`file_name`] is injective. Its result never leaves the directory, is never hidden, and never
//! equals a file name that lea uses itself (a part `FILE.2`, a manifest `FILE.lea.json`).

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::capture::formats;
use crate::limits::FILE_NAME_BYTES_MAX;
use crate::runtime::hex;

/// Suffix that turns the file name of a stream into the name of its manifest.
pub const MANIFEST_SUFFIX: &str = ".lea.json";

/// File name of the empty stream name. It cannot clash: escaping always writes two hexadecimal digits after
/// `%`.
const EMPTY_FILE_NAME: &str = "%empty";

/// Separator between the prefix of a long name and its hash. It occurs in no other file name.
const HASH_MARK: char = '~';

const HASH_DIGITS: usize = 64;

/// Fields of `<userid>-<providerid>-<serviceid>_<DD_MM_YYYY_HH:MM:SS>.pcap`, as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFields {
    /// Intercepted subscriber, as the sender writes it.
    pub user_id: String,
    pub provider_id: String,
    pub service_id: String,
    /// Start of the interception in the sender's local time, as sent: `21_11_2026_20:59:41`.
    pub start: String,
}

/// Parses a name of the usual form. Returns `None` for any other name.
pub fn parse_fields(name: &[u8]) -> Option<NameFields> {
    let name = std::str::from_utf8(name).ok()?;
    let stem = formats::strip_extension(name)?;
    let (ids, start) = stem.split_at_checked(stem.len().checked_sub("_DD_MM_YYYY_HH:MM:SS".len())?)?;
    let start = start.strip_prefix('_').filter(|start| is_start_time(start))?;
    // A user id may contain '-' (a SIP address does), so the fields are split from the right.
    let mut parts = ids.rsplitn(3, '-').map(str::to_owned).filter(|part| !part.is_empty());
    let (service_id, provider_id, user_id) = (parts.next()?, parts.next()?, parts.next()?);
    Some(NameFields { user_id, provider_id, service_id, start: start.to_owned() })
}

/// Removes the NUL bytes at the end of a name: some senders send it in a field of fixed size.
pub(crate) fn strip_padding(name: &[u8]) -> &[u8] {
    let bytes = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &name[..bytes]
}

/// Says what a name is if it is content instead: a sender that does not send a name, or speaks another protocol.
pub(crate) fn content_in_name(name: &[u8]) -> Option<&'static str> {
    /// Fewer bytes than this can be a name with a few strange characters.
    const BINARY_BYTES_MIN: usize = 16;
    let control_bytes = name.iter().filter(|byte| byte.is_ascii_control()).count();
    let is_request = |text: &[u8]| text.windows(8).any(|word| word == b" HTTP/1.");
    match name {
        [0x16, 0x03, 0..=4, ..] => Some("a TLS handshake"),
        [b'A'..=b'Z', ..] if is_request(name) => Some("an HTTP request"),
        [b'{', .., b'}'] if serde_json::from_slice::<serde_json::Map<_, _>>(name).is_ok() => {
            Some("a JSON object")
        }
        _ if name.len() >= BINARY_BYTES_MIN && control_bytes * 4 >= name.len() => Some("binary data"),
        _ => None,
    }
}

fn is_start_time(start: &str) -> bool {
    // chrono would also accept signs, spaces and short numbers.
    let shape = "00_00_0000_00:00:00";
    let fits = |(byte, shape): (u8, u8)| if shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    start.len() == shape.len()
        && start.bytes().zip(shape.bytes()).all(fits)
        && NaiveDateTime::parse_from_str(start, "%d_%m_%Y_%H:%M:%S").is_ok()
}

/// Derives the file name of a stream name. It is injective, and leaves safe names unchanged.
///
/// Letters, digits and `+-_.:@,=` stay as they are. Any other byte is written as `%` and two upper-case
/// hexadecimal digits. So are a leading dot, a leading `-` (commands would take it for an option), and the
/// dot of a suffix that lea uses itself (`.<digits>`, `.lea.json`). A result longer than
/// [`FILE_NAME_BYTES_MAX`] is truncated, then `~` and the SHA-256 of the stream name are appended.
pub fn file_name(name: &[u8]) -> String {
    if name.is_empty() {
        return EMPTY_FILE_NAME.to_owned();
    }
    let ending = reserved_suffix_at(name);
    let mut text = String::with_capacity(name.len());
    let mut prefix_bytes = 0;
    for (at, byte) in name.iter().enumerate() {
        let first = at == 0 && matches!(byte, b'.' | b'-');
        let plain = is_plain(*byte) && !first && Some(at) != ending;
        if plain {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        if text.len() <= FILE_NAME_BYTES_MAX - HASH_DIGITS - HASH_MARK.len_utf8() {
            prefix_bytes = text.len();
        }
    }
    if text.len() > FILE_NAME_BYTES_MAX {
        text.truncate(prefix_bytes);
        text.push(HASH_MARK);
        text.push_str(&hex::encode(&Sha256::digest(name)));
    }
    text
}

/// Inverts [`file_name`]. Returns `None` for a file name with a hash, and for names that [`file_name`] never
/// returns.
pub fn decode_file_name(file_name: &str) -> Option<Vec<u8>> {
    if file_name == EMPTY_FILE_NAME {
        return Some(Vec::new());
    }
    let mut name = Vec::with_capacity(file_name.len());
    let mut rest = file_name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            name.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    // The loop above is lenient. This comparison is not.
    (self::file_name(&name) == file_name).then_some(name)
}

/// File name of a part: part 1 is the file name itself, part n is `FILE.n`.
pub fn part_file_name(file_name: &str, part: u32) -> String {
    if part == 1 { file_name.to_owned() } else { format!("{file_name}.{part}") }
}

/// Inverts [`part_file_name`]: splits the name of a stored file into the stream's file name and the part.
/// Returns `None` for other files.
pub fn parse_part_file_name(stored: &str) -> Option<(&str, u32)> {
    let (file, part) = match stored.rsplit_once('.') {
        Some((file, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (file, digits.parse().ok().filter(|part| *part >= 2 && !digits.starts_with('0'))?)
        }
        _ => (stored, 1),
    };
    is_file_name(file).then_some((file, part))
}

/// Reports whether [`file_name`] may have returned this name.
fn is_file_name(file: &str) -> bool {
    let hashed = || {
        let (prefix, hash) = file.split_once(HASH_MARK)?;
        let hash_fits =
            hash.len() == HASH_DIGITS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let plain =
            prefix.bytes().all(|byte| is_plain(byte) || byte == b'%') && !prefix.starts_with(['.', '-']);
        (hash_fits && plain && file.len() <= FILE_NAME_BYTES_MAX).then_some(())
    };
    decode_file_name(file).is_some() || hashed().is_some()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-_.:@,=".contains(&byte)
}

/// Position of the dot that starts a suffix which lea uses itself.
fn reserved_suffix_at(name: &[u8]) -> Option<usize> {
    if name.ends_with(MANIFEST_SUFFIX.as_bytes()) {
        return Some(name.len() - MANIFEST_SUFFIX.len());
    }
    let dot = name.iter().rposition(|byte| !byte.is_ascii_digit())?;
    (name[dot] == b'.' && dot + 1 < name.len()).then_some(dot)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check_file_name(name: &[u8], expected: &str) {
        assert_eq!(file_name(name), expected, "{}", name.escape_ascii());
        assert_eq!(decode_file_name(expected).as_deref(), Some(name), "{expected}");
        check_safe(name);
    }

    fn check_safe(name: &[u8]) {
        let file = file_name(name);
        let digits = file.bytes().rev().take_while(u8::is_ascii_digit).count();
        let before = file.len().checked_sub(digits + 1).map(|at| file.as_bytes()[at]);
        assert!(digits == 0 || before != Some(b'.'), "{file} could be a part");
        assert!(!file.ends_with(".lea.json"), "{file} could be a manifest");
        assert!(!file.is_empty() && !file.starts_with('.'), "{file} is hidden");
        assert!(!file.starts_with('-'), "{file} could be an option");
        assert!(file.len() <= FILE_NAME_BYTES_MAX, "{file} is too long");
        assert!(file.bytes().all(|byte| is_plain(byte) || byte == b'%' || byte == b'~'), "{file}");
        for part in [1, 2, 10, u32::MAX] {
            assert_eq!(parse_part_file_name(&part_file_name(&file, part)), Some((&*file, part)));
        }
    }

    #[test]
    fn names_become_safe_file_names() {
        let usual = "+447700900123-2-3_21_11_2026_20:59:41.pcap";
        check_file_name(usual.as_bytes(), usual);
        check_file_name(b"alice@example.org,a=b", "alice@example.org,a=b");
        check_file_name(b"", "%empty");
        check_file_name(b"%empty", "%25empty");
        check_file_name(b".", "%2E");
        check_file_name(b"-", "%2D");
        check_file_name(b"-rf", "%2Drf");
        check_file_name(b"--2-3_21_11_2026_20:59:41.pcap", "%2D-2-3_21_11_2026_20:59:41.pcap");
        check_file_name(b"..", "%2E.");
        check_file_name(b"../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd");
        check_file_name(b"/etc/passwd", "%2Fetc%2Fpasswd");
        check_file_name(b".lea", "%2Elea");
        check_file_name(b".lea.json", "%2Elea.json");
        check_file_name(b"x.lea.json", "x%2Elea.json");
        check_file_name(b"x.lea.json.2", "x.lea.json%2E2");
        check_file_name(b"x.pcap.2", "x.pcap%2E2");
        check_file_name(b"x.1.22", "x.1%2E22");
        check_file_name(b".2", "%2E2");
        check_file_name(b"2", "2");
        check_file_name(b"x.", "x.");
        check_file_name(b"a\0b\nc d~\xff\xc3\xa9", "a%00b%0Ac%20d%7E%FF%C3%A9");
    }

    #[test]
    fn long_names_end_in_their_hash() {
        let fits = vec![b'a'; FILE_NAME_BYTES_MAX];
        check_file_name(&fits, &"a".repeat(FILE_NAME_BYTES_MAX));
        // After 134 bytes comes an escape that would cross the limit of 135.
        for (name, prefix_bytes) in [
            (vec![b'a'; 201], 135),
            ([vec![b'a'; 134], vec![b'/'; 3000]].concat(), 134),
            (vec![b'/'; 4096], 135),
        ] {
            let file = file_name(&name);
            let (prefix, hash) = file.split_once('~').unwrap();
            assert_eq!(prefix.len(), prefix_bytes);
            assert_eq!(hash, hex::encode(&Sha256::digest(&name)));
            assert_eq!(decode_file_name(&file), None);
            check_safe(&name);
            // A hashed file name that is sent as a stream name gets another file name.
            assert_ne!(file_name(file.as_bytes()), file);
        }
        assert!(part_file_name(&file_name(&[b'/'; 4096]), u32::MAX).len() + MANIFEST_SUFFIX.len() <= 255);
    }

    #[test]
    fn different_names_have_different_file_names() {
        let pieces: [&[u8]; 13] = [
            b"-",
            b".",
            b"/",
            b"%",
            b"~",
            b"2",
            b"E",
            b"lea",
            b".json",
            b"\0",
            b"a",
            b"%empty",
            b".lea.json",
        ];
        let mut names: HashSet<Vec<u8>> = HashSet::from([Vec::new()]);
        for _ in 0..4 {
            let longer = names.iter().flat_map(|name| pieces.iter().map(|piece| [name, *piece].concat()));
            names = longer.chain(names.iter().cloned()).collect();
        }
        let files: HashSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        for name in &names {
            assert_eq!(decode_file_name(&file_name(name)).as_ref(), Some(name));
            check_safe(name);
        }
    }

    #[test]
    fn foreign_file_names_are_not_decoded() {
        for other in ["", "%2e", "%61", "x%", "x%2", "%zz", "%+1", "x.2", "x.lea.json", ".x", "a b", "x~"] {
            assert_eq!(decode_file_name(other), None, "{other}");
        }
        for other in ["x.01", "x.1", "x.0", "x.4294967296", ".lea", "x.lea.json", "a b", "x~00"] {
            assert_eq!(parse_part_file_name(other), None, "{other}");
        }
        assert_eq!(parse_part_file_name("x.pcap.2"), Some(("x.pcap", 2)));
    }

    #[test]
    fn padding_is_removed_from_the_end_only() {
        for (name, stripped) in [
            (&b"call.pcap\0\0\0"[..], &b"call.pcap"[..]),
            (b"call.pcap", b"call.pcap"),
            (b"\0call\0.pcap\0", b"\0call\0.pcap"),
            (b"\0\0", b""),
            (b"", b""),
        ] {
            assert_eq!(strip_padding(name), stripped);
        }
    }

    #[test]
    fn content_is_told_from_a_name() {
        for (name, expected) in [
            (&b"+447700900123-2-3_21_11_2026_20:59:41.pcap"[..], None),
            (b"GET / HTTP/1.1", Some("an HTTP request")),
            (b"GET the HTTP capture.pcap", None),
            (b"\x16\x03\x01\x02\0\x01\0", Some("a TLS handshake")),
            (b"{\"userid\": \"+447700900123\"}", Some("a JSON object")),
            (b"{call}", None),
            (b"{\"call", None),
            (b"call\0.pcap", None),
            (b"\x1b]0;x\x07\x1b[2J", None),
            (b"\0\0\0\x80\x7d\x2d\x02\x6b\x02\x04\x00\x58\0\0\0\x46", Some("binary data")),
            ("календарь-разговоров.pcap".as_bytes(), None),
        ] {
            assert_eq!(content_in_name(name), expected, "{}", name.escape_ascii());
        }
    }

    fn check_fields(name: &str, expected: Option<[&str; 4]>) {
        let found = parse_fields(name.as_bytes());
        let found = found.as_ref().map(|f| [&*f.user_id, &*f.provider_id, &*f.service_id, &*f.start]);
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn names_of_the_usual_form_are_parsed() {
        let start = "21_11_2026_20:59:41";
        check_fields("+447700900123-2-3_21_11_2026_20:59:41.pcap", Some(["+447700900123", "2", "3", start]));
        check_fields("a-b_c-2-x_y_21_11_2026_20:59:41.pcapng", Some(["a-b_c", "2", "x_y", start]));
        check_fields("a-2-3_21_11_2026_20:59:41.pcap.gz", Some(["a", "2", "3", start]));
        check_fields("a-2-3_21_11_2026_20:59:41.pcapng.zst", Some(["a", "2", "3", start]));
        check_fields("a-2-3_21_11_2026_20:59:41.snoop", Some(["a", "2", "3", start]));
        check_fields("--2-3_21_11_2026_20:59:41.pcap", Some(["-", "2", "3", start]));
        for other in [
            "",
            ".pcap",
            "+447700900123.pcap",
            "+447700900123-2-3_21_11_2026_20:59:41",
            "+447700900123-2-3_21_11_2026_20:59:41.txt",
            "+447700900123-2_21_11_2026_20:59:41.pcap",
            "-2-3_21_11_2026_20:59:41.pcap",
            "a--3_21_11_2026_20:59:41.pcap",
            "a-2-_21_11_2026_20:59:41.pcap",
            "a-2-3_32_11_2026_20:59:41.pcap",
            "a-2-3_29_02_2026_20:59:41.pcap",
            "a-2-3_21_11_2026_24:59:41.pcap",
            "a-2-3_+1_11_2026_20:59:41.pcap",
            "a-2-3_21-11-2026_20:59:41.pcap",
            "a-2-3é21_11_2026_20:59:41.pcap",
            "a-2-321_11_2026_20:59:41.pcap",
        ] {
            check_fields(other, None);
        }
        assert_eq!(parse_fields(b"\xff-2-3_21_11_2026_20:59:41.pcap"), None);
    }
}
