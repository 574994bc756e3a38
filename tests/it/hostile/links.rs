//! Links and files that another user planted in the output directory: `lea` never follows them out of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::company::Company;
use super::document::Table;
use super::ground::Ground;
use crate::support::{Handshake, Sender, Workdir, lea, testdata};

/// Returns a manifest as `lea` writes it, for another file.
fn manifest_of(file: &str, bytes: usize) -> String {
    format!(
        "{{\"format_version\":1,\"name\":\"call-7\",\"source\":\"tcp\",\"file\":\"{file}\",\"part\":1,\"state\":\"closed\",\
         \"end_reason\":\"eof\",\"bytes\":{bytes},\"capture\":{{\"format\":\"other\",\"packets\":0,\"truncated_bytes\":0}},\
         \"connections\":[],\"lea_version\":\"0.1.0\"}}"
    )
}

type Plant = fn(&Path, &str);

/// What is planted for a stream of this name. `../../etc/passwd` leads to an existing file outside the
/// directory.
const PLANTS: [(&str, Plant); 10] = [
    ("NAME is a link to a file outside", |dir, name| symlink("../../etc/passwd", dir.join(name)).unwrap()),
    ("NAME is a link to nothing outside", |dir, name| symlink("../../etc/shadow", dir.join(name)).unwrap()),
    ("NAME is a link to a directory outside", |dir, name| symlink("../../etc", dir.join(name)).unwrap()),
    ("NAME is a directory", |dir, name| fs::create_dir(dir.join(name)).unwrap()),
    ("NAME is a FIFO without a reader", |dir, name| fifo(&dir.join(name))),
    ("NAME.lea.json is a link to a file outside", |dir, name| {
        symlink("../../etc/passwd", dir.join(format!("{name}.lea.json"))).unwrap();
    }),
    ("NAME.lea.json is a FIFO without a writer", |dir, name| fifo(&dir.join(format!("{name}.lea.json")))),
    ("NAME.lea.json is 8 MiB of `[`", |dir, name| {
        fs::write(dir.join(format!("{name}.lea.json")), "[".repeat(8 << 20)).unwrap();
    }),
    ("NAME with a manifest that names a file outside", |dir, name| {
        fs::write(dir.join(name), "a/etc/passwd").unwrap();
        fs::write(dir.join(format!("{name}.lea.json")), manifest_of("../../etc/passwd", 12)).unwrap();
    }),
    ("NAME with a manifest that names another stream's file", |dir, name| {
        fs::write(dir.join(name), "a/etc/passwd").unwrap();
        fs::write(dir.join("other"), "a/etc/passwd").unwrap();
        fs::write(dir.join(format!("{name}.lea.json")), manifest_of("other", 12)).unwrap();
    }),
];

fn fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
}

#[test]
fn what_is_planted_is_never_followed_and_never_changed() {
    let capture = testdata("pcap/rejected-call.pcap");
    let mut table = Table::new("links");
    let ground = Ground::new(&[]);
    let company = Company::start(&ground, "links", 2);
    for (number, (input, plant)) in PLANTS.into_iter().enumerate() {
        let name = format!("call-{number}");
        plant(&ground.output(), &name);
        // Bytes that are not a capture would be appended to the stored file. A capture would be compared with
        // it.
        for (behind, content) in [("more bytes", &b"+ more bytes"[..]), ("a capture", &capture)] {
            let mark = ground.mark();
            let mut sender = Sender::open(ground.addr(), &name, Handshake::Newline);
            sender.send(content);
            sender.finish();
            let since = ground.since(&mark, 1);
            let input = format!("{}; then {behind}", input.replace("NAME", &format!("`{name}`")));
            table.row(input, since.told(&ground.output(), content), since.counted(1));
        }
    }
    assert_eq!(fs::read(ground.output().join("other")).unwrap(), b"a/etc/passwd");
    company.end();
    ground.end();
    check_own_folder(&mut table);
    table.check();
}

/// A file of lea's metadata is a link, or its content points outside: the server refuses to start, or skips
/// it.
fn check_own_folder(table: &mut Table) {
    let plants: [(&str, Plant); 5] = [
        ("`.lea` is a link to a directory outside", |dir, outside| {
            symlink(outside, dir.join(".lea")).unwrap()
        }),
        ("`.lea/lock` is a link to a file outside", |dir, outside| {
            fs::create_dir(dir.join(".lea")).unwrap();
            symlink(format!("{outside}/file"), dir.join(".lea/lock")).unwrap();
        }),
        ("`.lea/tmp` is a link to a directory outside", |dir, outside| {
            fs::create_dir(dir.join(".lea")).unwrap();
            symlink(outside, dir.join(".lea/tmp")).unwrap();
        }),
        ("`.lea/open.jsonl` is a link to a file outside", |dir, outside| {
            fs::create_dir(dir.join(".lea")).unwrap();
            symlink(format!("{outside}/file"), dir.join(".lea/open.jsonl")).unwrap();
        }),
        ("`.lea/open.jsonl` contains a file outside as open", |dir, _| {
            fs::create_dir(dir.join(".lea")).unwrap();
            let line = r#"{"open":{"file":"../outside/file","name_hex":"61","part":1,"source":"tcp"}}"#;
            fs::write(dir.join(".lea/open.jsonl"), format!("{line}\n")).unwrap();
        }),
    ];
    for (input, plant) in plants {
        let work = Workdir::new();
        let (output, outside) = (work.join("out"), work.join("outside"));
        fs::create_dir(&output).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "canary").unwrap();
        plant(&output, outside.to_str().unwrap());
        let did = start(&output);
        let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{input}");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"canary", "{input}");
        table.row(input, did, "-");
    }
}

/// Starts a server on the directory, and stops it if it runs.
fn start(output: &Path) -> String {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(lea());
    command.args(["serve-tcp", "--listen", "127.0.0.1:0", "--output"]).arg(output);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut listens = false;
    for line in said {
        if line.contains("journal_line_skipped")
            || line.contains("recovered")
            || line.contains("recovery_failed")
        {
            eprintln!("{line}");
        }
        if line.contains("listening") {
            listens = true;
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::TERM,
            );
        }
    }
    match (listens, child.wait().unwrap().code()) {
        (true, Some(0)) => "starts, and skips it".to_owned(),
        (false, Some(code)) => format!("does not start, exit code {code}"),
        (_, code) => panic!("the server ended with {code:?}"),
    }
}
