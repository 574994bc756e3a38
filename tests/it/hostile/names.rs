//! Stream names that are not valid file names (docs/protocol.md, section 1).

use super::company::Company;
use super::document::Table;
use super::ground::Ground;
use crate::support::{Handshake, Sender, testdata};

#[test]
fn names_become_files_in_the_folder_or_are_refused() {
    let ground = Ground::new(&["--name-timeout", "5000ms"]);
    let company = Company::start(&ground, "names", 2);
    let mut table = Table::new("names");
    for (input, name) in names() {
        check_name(&ground, &mut table, input, &name);
    }
    // This name differs in each run, so the table cannot show it.
    let absolute = ground.outside("absolute").into_os_string().into_encoded_bytes();
    Sender::open(ground.addr(), absolute, Handshake::Newline).finish();
    company.end();
    ground.end();
    table.check();
}

fn names() -> Vec<(&'static str, Vec<u8>)> {
    let hash_like = [&b"call~"[..], "0123456789abcdef".repeat(4).as_bytes()].concat();
    vec![
        ("a usual name", b"+447700900123-2-3_21_11_2026_20:59:41.pcap".to_vec()),
        ("`../../etc/passwd`", b"../../etc/passwd".to_vec()),
        ("`/etc/passwd`", b"/etc/passwd".to_vec()),
        ("`..\\..\\etc\\passwd`", b"..\\..\\etc\\passwd".to_vec()),
        ("`.`", b".".to_vec()),
        ("`..`", b"..".to_vec()),
        ("`/`", b"/".to_vec()),
        ("the empty name", Vec::new()),
        ("`.lea`", b".lea".to_vec()),
        ("`.lea/lock`", b".lea/lock".to_vec()),
        ("`.lea/open.jsonl`", b".lea/open.jsonl".to_vec()),
        ("`call.pcap.lea.json`", b"call.pcap.lea.json".to_vec()),
        ("`call.pcap.2`", b"call.pcap.2".to_vec()),
        ("`call.pcap.2.lea.json`", b"call.pcap.2.lea.json".to_vec()),
        ("`%`", b"%".to_vec()),
        ("`%2E%2E`", b"%2E%2E".to_vec()),
        ("`%empty`", b"%empty".to_vec()),
        ("`call~` and 64 hexadecimal digits", hash_like),
        ("`-rf`", b"-rf".to_vec()),
        ("`--output=/tmp`", b"--output=/tmp".to_vec()),
        ("`$(id);id&&\"'`", b"$(id);id&&\"'".to_vec()),
        ("a NUL: `call\\0.pcap`", b"call\0.pcap".to_vec()),
        ("a carriage return: `call\\r.pcap`", b"call\r.pcap".to_vec()),
        ("terminal escapes: `\\x1b]0;x\\x07\\x1b[2J`", b"\x1b]0;x\x07\x1b[2J".to_vec()),
        ("an 8-bit control: `\\x9b2J`", b"\x9b2J".to_vec()),
        ("invalid UTF-8: `\\xff\\xfe\\xc3(`", b"\xff\xfe\xc3(".to_vec()),
        ("overlong UTF-8: `\\xc0\\xae\\xc0\\xae\\xc0\\xaf`", b"\xc0\xae\xc0\xae\xc0\xaf".to_vec()),
        ("text that runs from right to left: `call\\u202epac.p`", "call\u{202e}pac.p".into()),
        ("200 bytes, escaped", vec![b'a'; 200]),
        ("201 bytes, escaped", vec![b'a'; 201]),
        ("67 bytes, each escaped: 201", vec![b'/'; 67]),
        ("4,096 bytes", vec![b'n'; 4096]),
        ("4,097 bytes", vec![b'n'; 4097]),
        ("10 kB", vec![b'n'; 10_000]),
        ("a newline: `call\\nx`, and a capture", b"call\nx".to_vec()),
    ]
}

/// Sends a capture under the name in one send. The magic of the capture ends the name.
fn check_name(ground: &Ground, table: &mut Table, input: &str, name: &[u8]) {
    let capture = testdata("pcap/rejected-call.pcap");
    let mark = ground.mark();
    let mut sender = Sender::open(ground.addr(), name, Handshake::Joined);
    // The server may reject the name before everything is sent.
    let _ = sender.try_send(&capture);
    drop(sender);
    let since = ground.since(&mark, 1);
    // Bytes after a newline are content.
    let behind = name.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &name[at + 1..]);
    let content = [behind, &capture].concat();
    table.row(input, since.told(&ground.output(), &content), since.counted(1));
}
