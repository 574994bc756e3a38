//! Formats of captures: each one is sent, and what `lea` stores and says is compared with tshark. The result is the table
//! in docs/captures.md; `LEA_UPDATE=1 cargo test --test it captures::` rewrites it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lea::capture::damage::DamageKind;
use lea::capture::summary::CaptureSummary;
use lea::cc::vault::manifest::{Manifest, ManifestState};

use crate::support::status::metric;
use crate::support::stored::{assert_only, assert_whole, wait_connections};
use crate::support::{
    DEADLINE, Handshake, Sender, Server, Workdir, lea, manifest, testdata, tshark_fields, tshark_ok,
    wait_for, wait_until,
};

const CALL: &str = "pcap/rejected-call.pcap";

/// A format of the table.
struct Format {
    name: &'static str,
    extension: &'static str,
    content: Vec<u8>,
    /// Reason why a name that is sent with the content cannot be told from it.
    unjoined: Option<&'static str>,
    /// Reason why the file does not end at packets while it grows.
    unaligned: Option<&'static str>,
    /// Reason why `lea replay` does not follow the packets.
    unpaced: Option<&'static str>,
    /// Reason why times differ from those of tshark.
    untimed: Option<&'static str>,
}

impl Format {
    fn capture(name: &'static str, content: Vec<u8>) -> Format {
        Format {
            name,
            extension: "pcap",
            content,
            unjoined: None,
            unaligned: None,
            unpaced: None,
            untimed: None,
        }
    }

    fn compressed(name: &'static str, extension: &'static str, content: Vec<u8>) -> Format {
        Format {
            extension,
            unaligned: Some("packets do not end at bytes of the file"),
            unpaced: Some("packets do not end at bytes of the file"),
            ..Format::capture(name, content)
        }
    }
}

/// Converts the sample with editcap.
fn converted(work: &Path, format: &str) -> Vec<u8> {
    let path = work.join(format);
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(CALL);
    let output = Command::new("editcap").args(["-F", format]).arg(sample).arg(&path).output().unwrap();
    assert!(output.status.success(), "editcap -F {format}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(path).unwrap()
}

/// Pipes the content through a program.
fn piped(program: &str, args: &[&str], content: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    child.stdin.take().unwrap().write_all(content).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// The packets of the sample as ERF records of type Ethernet.
fn erf() -> Vec<u8> {
    let pcap = testdata(CALL);
    let mut records = Vec::new();
    for packet in crate::support::capture::packets(&pcap).windows(2) {
        let data = &pcap[packet[0].end + 16..packet[1].end];
        let record_bytes = (16 + 2 + data.len()).next_multiple_of(8);
        let seconds = 1_795_294_781 + records.len() as u32;
        records.extend([0x8000_0000_u32.to_le_bytes(), seconds.to_le_bytes()].concat());
        records.extend([2, 4]);
        records.extend((record_bytes as u16).to_be_bytes());
        records.extend([0, 0]);
        records.extend((data.len() as u16).to_be_bytes());
        records.extend([0, 0]);
        records.extend(data);
        records.resize(records.len().next_multiple_of(8), 0);
    }
    records
}

fn formats(work: &Path) -> Vec<Format> {
    let pcap = testdata(CALL);
    let case = |name: &str| testdata(&format!("captures/{name}"));
    let ixia_hardware = Format {
        untimed: Some("tshark 4.0 takes its nanoseconds for microseconds, later ones do not"),
        ..Format::capture("pcap of Ixia hardware", case("ixia-hw.pcap"))
    };
    let ixia_software = [b"\xab", &case("ixia-hw.pcap")[1..]].concat();
    let erf = Format {
        extension: "erf",
        unjoined: Some("it has no magic number"),
        ..Format::capture("ERF", erf())
    };
    vec![
        Format::capture("pcap", pcap.clone()),
        Format::capture("pcap with nanoseconds", converted(work, "nsecpcap")),
        Format::capture("pcap, modified (routers of AVM)", converted(work, "modpcap")),
        Format::capture("pcap of SuSE 6.3", converted(work, "suse6_3pcap")),
        Format::capture("pcap of Red Hat 6.1", converted(work, "rh6_1pcap")),
        Format::capture("pcap of Nokia", converted(work, "nokiapcap")),
        Format::capture("pcap of AIX", case("aix.pcap")),
        ixia_hardware,
        Format::capture("pcap of Ixia software", ixia_software),
        Format { extension: "pcapng", ..Format::capture("pcapng", converted(work, "pcapng")) },
        Format { extension: "snoop", ..Format::capture("snoop", converted(work, "snoop")) },
        erf,
        Format::compressed("gzip", "pcap.gz", piped("gzip", &["-c"], &pcap)),
        Format::compressed("zstd", "pcap.zst", piped("zstd", &["-c"], &pcap)),
        Format::compressed("lz4", "pcap.lz4", piped("lz4", &["-c"], &pcap)),
    ]
}

fn cell(reason: Option<&str>) -> String {
    reason.map_or_else(|| "yes".to_owned(), |reason| format!("no: {reason}"))
}

/// Waits until the stream in a file has ended `connections` times.
fn closed(output: &Path, file: &str, connections: usize) -> Manifest {
    wait_connections(output, file, connections);
    wait_for(DEADLINE, "the manifest to be closed", || {
        manifest(output, file).filter(|manifest| manifest.state == ManifestState::Closed)
    })
}

/// Epoch times of all packets as tshark prints them, in nanoseconds. `None`: it prints none for the packet.
fn tshark_times(file: &Path) -> Vec<Option<i64>> {
    let to_ns = |text: &String| {
        let (seconds, fraction) = text.split_once('.')?;
        let nanos: i64 = format!("{fraction:0<9}").parse().unwrap();
        Some(seconds.parse::<i64>().unwrap() * 1_000_000_000 + nanos)
    };
    tshark_fields(file, "frame", "frame.time_epoch").iter().map(to_ns).collect()
}

#[track_caller]
fn check_as_tshark(file: &Path, capture: &CaptureSummary) {
    let times = tshark_times(file);
    let found = (capture.packets, capture.first_packet_ns, capture.last_packet_ns);
    let known = || times.iter().flatten().copied();
    assert_eq!(found, (times.len() as u64, known().min(), known().max()), "{}", file.display());
}

/// The name arrives with the first content.
fn check_joined(server: &Server, format: &Format) {
    let name = format!("joined-{}.{}", format.name.replace([' ', ',', '(', ')'], ""), format.extension);
    let mut sender = Sender::open(server.addr(), &name, Handshake::Joined);
    if format.unjoined.is_some() {
        // The receiver may reject it before everything is sent.
        let _ = sender.try_send(&format.content);
    } else {
        sender.send(&format.content);
        sender.finish();
        closed(server.output(), &name, 1);
        assert_whole(server.output(), &name, &format.content);
    }
}

/// A stream is cut inside a packet, and then sent again from its start.
fn check_growing(server: &Server, format: &Format) {
    let name = format!("{}.{}", format.name.replace([' ', ',', '(', ')'], ""), format.extension);
    let path = server.output().join(&name);
    let cut = format.content.len() * 7 / 10 + 5;
    let mut sender = Sender::open(server.addr(), &name, Handshake::Newline);
    sender.send(&format.content[..cut]);
    if format.unaligned.is_none() {
        wait_until(DEADLINE, "the first packets in the file", || {
            fs::metadata(&path).is_ok_and(|meta| meta.len() > cut as u64 / 4)
        });
        let growing = server.output().join(format!("copy-{name}"));
        fs::copy(&path, &growing).unwrap();
        assert!(
            fs::metadata(&growing).unwrap().len() < cut as u64,
            "{}: it ends inside a packet",
            format.name
        );
        tshark_ok(&growing).unwrap();
        fs::remove_file(growing).unwrap();
    }
    sender.finish();
    let cut_manifest = closed(server.output(), &name, 1);
    let kinds: Vec<DamageKind> = cut_manifest.capture.damage.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::Truncated], "{}", format.name);
    let mut sender = Sender::open(server.addr(), &name, Handshake::Newline);
    sender.send(&format.content);
    sender.finish();
    let whole = closed(server.output(), &name, 2);
    assert_whole(server.output(), &name, &format.content);
    assert!(
        !server.output().join(format!("{name}.2")).exists(),
        "{}: the re-send is recognised",
        format.name
    );
    assert_eq!(whole.capture.damage, [], "{}", format.name);
    if format.untimed.is_none() {
        check_as_tshark(&path, &whole.capture);
    }
}

/// `lea replay` finds the packets with their times: none is after the year 2100.
fn check_paced(work: &Path, server: &Server, format: &Format) {
    let path = work.join(format!("replayed.{}", format.extension));
    fs::write(&path, &format.content).unwrap();
    let addr = server.addr().to_string();
    let mut command = Command::new(lea());
    command.arg("replay").arg(&path).args(["--tcp", &addr, "--from", "2100-01-01", "--handshake", "newline"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let has_packets = stderr.contains("packets_selected=0") || stderr.contains("no packet");
    assert_eq!(has_packets, format.unpaced.is_none(), "{}: {} {stderr}", format.name, output.status);
}

#[test]
fn each_format_is_stored_read_and_recognised() {
    let work = Workdir::new();
    let output = work.join("out");
    let server = Server::start(&output, &[]);
    let mut rows = vec![
        "| format | stored exactly | boundaries while growing | packets and times equal to tshark's \
         | re-send recognised | joined name recognised | replay paces |"
            .to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for format in formats(work.path()) {
        check_joined(&server, &format);
        check_growing(&server, &format);
        check_paced(work.path(), &server, &format);
        let Format { name, unaligned, untimed, unjoined, unpaced, .. } = format;
        let [unaligned, untimed, unjoined, unpaced] = [unaligned, untimed, unjoined, unpaced].map(cell);
        rows.push(format!("| {name} | yes | {unaligned} | {untimed} | yes | {unjoined} | {unpaced} |"));
    }
    server.term();
    check_table(&rows.join("\n"));
}

/// Compares a table with the one between two marks in docs/captures.md.
fn check_table(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/captures.md");
    let page = fs::read_to_string(&path).unwrap();
    let (start, rest) = page.split_once("<!-- table of formats -->\n").unwrap();
    let (kept, end) = rest.split_once("\n<!-- end -->").unwrap();
    if std::env::var_os("LEA_UPDATE").is_some() {
        fs::write(path, format!("{start}<!-- table of formats -->\n{table}\n<!-- end -->{end}")).unwrap();
    } else {
        assert_eq!(kept, table, "LEA_UPDATE=1 rewrites the table");
    }
}

/// Sends a stream whose name is joined to it. Returns its manifest.
fn send_joined(server: &Server, name: &str, content: &[u8]) -> Manifest {
    let mut sender = Sender::open(server.addr(), name, Handshake::Joined);
    sender.send(content);
    sender.finish();
    let manifest = closed(server.output(), name, 1);
    assert_whole(server.output(), name, content);
    manifest
}

fn kinds(manifest: &Manifest) -> Vec<DamageKind> {
    manifest.capture.damage.iter().map(|damage| damage.kind).collect()
}

#[test]
fn what_readers_refuse_is_in_the_manifest() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let case = |name: &str| testdata(&format!("captures/{name}"));
    let send = |name: &str| send_joined(&server, name, &case(name));
    let overlong = send("ng-lightpcapng-12-more.pcapng");
    assert_eq!(kinds(&overlong), [DamageKind::BadBlock]);
    assert!(overlong.capture.damage[0].detail.contains("52685 bytes"), "{:?}", overlong.capture.damage);
    let appended = send("two-pcaps.pcap");
    assert_eq!((kinds(&appended), appended.capture.packets), (vec![DamageKind::AppendedCapture], 4));
    let odd = send("ng-odd-block-length-padded.pcapng");
    assert_eq!((kinds(&odd), odd.capture.packets), (vec![], 2));
    let nanoseconds = send("ns-in-micro.pcap");
    let capture = nanoseconds.capture;
    assert_eq!((capture.packets, capture.packets_without_time, capture.last_packet_ns), (3, 3, None));
    let interfaces = send("ng-ifaces-in-turn.pcapng");
    check_as_tshark(&server.output().join(&interfaces.file), &interfaces.capture);
    assert_eq!((interfaces.capture.packets, interfaces.capture.link_types.len()), (300, 2));
    let mut version = testdata(CALL);
    version[4..6].copy_from_slice(&[1, 0]);
    assert_eq!(kinds(&send_joined(&server, "version-1.pcap", &version)), [DamageKind::Unsupported]);
    server.term();
}

#[test]
fn packets_out_of_order_and_several_link_types_are_counted_right() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let mut pcap = testdata(CALL);
    let ends: Vec<usize> = crate::support::capture::packets(&pcap).iter().map(|packet| packet.end).collect();
    // The first packet becomes the last one.
    pcap[24..].rotate_left(ends[0] - 24);
    let manifest = send_joined(&server, "turned.pcap", &pcap);
    check_as_tshark(&server.output().join("turned.pcap"), &manifest.capture);
    assert!(manifest.capture.first_packet_ns < manifest.capture.last_packet_ns);
    let mut raw = testdata(CALL);
    raw[20] = 101;
    let [other, merged]: [PathBuf; 2] = ["raw.pcap", "merged.pcapng"].map(|name| work.join(name));
    fs::write(&other, raw).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(CALL);
    let mut merge = Command::new("mergecap");
    merge.args(["-F", "pcapng", "-w"]).arg(&merged).arg(sample).arg(&other);
    assert!(merge.output().unwrap().status.success());
    let manifest = send_joined(&server, "merged.pcapng", &fs::read(&merged).unwrap());
    assert_eq!(manifest.capture.link_types.len(), 2, "{:?}", manifest.capture.link_types);
    check_as_tshark(&merged, &manifest.capture);
    server.term();
}

#[test]
fn a_padded_name_is_stored_without_its_padding() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let content = testdata(CALL);
    let mut padded = b"padded.pcap".to_vec();
    padded.resize(64, 0);
    let mut sender = Sender::open(server.addr(), &padded, Handshake::Joined);
    sender.send(&content[..700]);
    sender.finish();
    closed(server.output(), "padded.pcap", 1);
    // Without the padding it is the same stream.
    let mut sender = Sender::open(server.addr(), "padded.pcap", Handshake::Newline);
    sender.send(&content);
    sender.finish();
    let manifest = closed(server.output(), "padded.pcap", 2);
    assert_whole(server.output(), "padded.pcap", &content);
    assert_eq!(manifest.name, "padded.pcap");
    let raw: Vec<Option<String>> =
        manifest.connections.iter().map(|connection| connection.raw_name_hex.clone()).collect();
    assert_eq!(raw, [Some(lea::runtime::hex::encode(&padded)), None]);
    server.term();
}

#[test]
fn content_in_place_of_a_name_is_refused_with_what_is_expected() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--admin-listen", "127.0.0.1:0"]);
    let admin = server.status_addr();
    let line = b"{\"userid\": \"+447700900123\", \"data\": \"1MOyoQ==\"}\n".to_vec();
    let inputs = [
        (b"POST /streams HTTP/1.1\r\nHost: lemf\r\n\r\n".to_vec(), "an HTTP request"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\n".to_vec(), "a TLS handshake"),
        (line, "a JSON object"),
        (erf(), "binary data"),
    ];
    for (number, (input, _)) in inputs.iter().enumerate() {
        let mut sender = Sender::connect(server.addr());
        let _ = sender.try_send(input);
        wait_until(DEADLINE, "the connection to be rejected", || {
            metric(admin, "connections_rejected_total{listener=\"tcp\",reason=\"no_name\"}") > number as u64
        });
    }
    let output = server.output().to_owned();
    let stderr = server.term();
    for (_, content) in inputs {
        assert!(stderr.contains(&format!("received=\"{content}\" note=\"send the name")), "{stderr}");
    }
    assert_only(&output, []);
}

/// A dump in which a stream is cut after some bytes and then sent again from its start.
#[test]
fn a_re_send_in_a_dump_is_recognised_in_each_format() {
    let work = Workdir::new();
    for format in formats(work.path()) {
        let chunk = |bytes: &[u8]| {
            let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
            serde_json::json!({"data": data, "interceptionfilename": "call.pcap"}).to_string() + "\n"
        };
        let cut = format.content.len().min(400);
        let sends = [&format.content[..cut], &format.content];
        let dump: String = sends.iter().flat_map(|content| content.chunks(100)).map(chunk).collect();
        let path = work.join("dump.jsonl");
        fs::write(&path, dump).unwrap();
        let output = work.join(format!("out of {}", format.name));
        let mut command = Command::new(lea());
        command.arg("decode").arg(&path).arg("--output").arg(&output);
        assert!(command.output().unwrap().status.success(), "{}", format.name);
        assert_whole(&output, "call.pcap", &format.content);
        assert!(!output.join("call.pcap.2").exists(), "{}", format.name);
    }
}
