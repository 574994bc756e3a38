//! Live calls: SIPp between two network namespaces, captured by tcpdump and dumpcap, and streamed to `lea`
//! while the captures grow. The stored files equal the captures.
//!
//! If namespaces cannot be created, the calls use the loopback interface. Capturing needs root in any case.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, geteuid};

use crate::support::capture::packets;
use crate::support::netns::{CABLE, Netns};
use crate::support::process::Process;
use crate::support::sender::CHUNK_BYTES;
use crate::support::{
    DEADLINE, Handshake, Sender, Server, Workdir, assert_same, long, tshark_fields, tshark_ok, wait_closed,
    wait_until,
};

/// Parameters of a run.
struct Form {
    calls: usize,
    calls_per_second: usize,
    talk: Duration,
    /// How long a sender sleeps at the end of a growing capture.
    poll: Duration,
}

impl Form {
    fn chosen() -> Form {
        let (second, poll) = (Duration::from_secs(1), Duration::from_millis(100));
        if long() {
            return Form { calls: 40, calls_per_second: 2, talk: 20 * second, poll: 2 * second };
        }
        Form { calls: 3, calls_per_second: 2, talk: 2 * second, poll }
    }
}

#[test]
fn calls_are_stored_while_they_are_captured() {
    let form = Form::chosen();
    let work = Workdir::new();
    let network = Network::new();
    let server = Server::start(&work.join("out"), &[]);
    let mut captures = [Capture::tcpdump(&network, &work), Capture::dumpcap(&network, &work)];
    let ended = [AtomicBool::new(false), AtomicBool::new(false)];

    thread::scope(|scope| {
        for (capture, ended) in captures.iter().zip(&ended) {
            let (addr, name, file, poll) = (server.addr(), capture.name, capture.file.clone(), form.poll);
            scope.spawn(move || stream(addr, name, &file, poll, ended));
        }
        // The senders end also if a check fails.
        let _end = EndOnDrop(&ended);
        let mut callee = Sip::callee(&network, &work, form.calls);
        let mut caller = Sip::caller(&network, &work, &callee, &form);
        for capture in &captures {
            let stored = server.output().join(capture.name);
            wait_until(DEADLINE, "the first call in the stored file", || count(&stored, b"INVITE sip:") > 0);
        }
        assert!(caller.process.is_running(), "nothing was stored while the calls went on");
        let calls_deadline = DEADLINE + form.talk + Duration::from_secs(form.calls as u64);
        caller.process.wait_code(calls_deadline, 0);
        callee.process.wait_code(calls_deadline, 0);
        for (capture, ended) in captures.iter_mut().zip(&ended) {
            capture.finish(form.calls);
            ended.store(true, Ordering::SeqCst);
        }
    });

    for capture in &captures {
        check_stored(&server, capture, form.calls);
    }
    server.term();
}

/// Checks that the stored file equals the capture, and that tshark finds each call in it, with its dialog and
/// its audio.
fn check_stored(server: &Server, capture: &Capture, calls: usize) {
    let manifest = wait_closed(server.output(), capture.name);
    let stored = server.output().join(capture.name);
    let captured = fs::read(&capture.file).unwrap();
    assert_same(&stored, &captured);
    assert_eq!(manifest.capture.packets, packets(&captured).len() as u64);
    tshark_ok(&stored).unwrap();
    for method in ["INVITE", "ACK", "BYE"] {
        let mut dialogs = tshark_fields(&stored, &format!("sip.Method == {method}"), "sip.Call-ID");
        dialogs.sort_unstable();
        dialogs.dedup();
        assert_eq!(dialogs.len(), calls, "{}: dialogs with {method}", capture.name);
    }
    let audio = tshark_fields(&stored, "rtp && rtp.p_type == 8", "rtp.ssrc");
    // 50 packets per second and direction; a busy machine sends fewer.
    assert!(audio.len() > calls * 25, "{}: {} audio packets in {calls} calls", capture.name, audio.len());
}

/// Sends a growing file as real senders do: the name, a pause of one second, sends of 100 bytes, and a check
/// for new bytes every `poll`.
fn stream(addr: SocketAddr, name: &str, file: &Path, poll: Duration, ended: &AtomicBool) {
    let mut sender = Sender::open(addr, name, Handshake::Gap);
    let mut file = File::open(file).unwrap();
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        // This is read before the file, so that bytes written until the end are not missed.
        let ended = ended.load(Ordering::SeqCst);
        match file.read(&mut chunk).unwrap() {
            0 if ended => break,
            0 => thread::sleep(poll),
            read => sender.send(&chunk[..read]),
        }
    }
    sender.finish();
}

struct EndOnDrop<'a>(&'a [AtomicBool]);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|ended| ended.store(true, Ordering::SeqCst));
    }
}

/// How often `needle` occurs in a file; 0 if there is no file.
fn count(file: &Path, needle: &[u8]) -> usize {
    let content = fs::read(file).unwrap_or_default();
    content.windows(needle.len()).filter(|window| *window == needle).count()
}

/// The network of the calls.
enum Network {
    /// Two connected namespaces: caller and callee.
    Namespaces([Netns; 2]),
    /// 127.0.0.1 for both sides.
    Loopback,
}

#[derive(Clone, Copy)]
enum Side {
    Caller,
    Callee,
}

const ADDRS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

impl Network {
    fn new() -> Network {
        match Netns::try_pair(ADDRS) {
            Ok(pair) => Network::Namespaces(pair),
            Err(reason) => {
                eprintln!("NO NETWORK NAMESPACES ({reason}): the calls go over loopback instead");
                Network::Loopback
            }
        }
    }

    /// Starts a process on one side.
    #[track_caller]
    fn start(&self, side: Side, command: &mut Command) -> Process {
        match self {
            Network::Namespaces(pair) => pair[side as usize].run(|| Process::start(command)),
            Network::Loopback => Process::start(command),
        }
    }

    fn addr(&self, side: Side) -> &'static str {
        match self {
            Network::Namespaces(_) => ADDRS[side as usize],
            Network::Loopback => "127.0.0.1",
        }
    }

    fn interface(&self) -> &'static str {
        match self {
            Network::Namespaces(_) => CABLE,
            Network::Loopback => "lo",
        }
    }
}

/// A capture program, its file, and the name of the stream.
struct Capture {
    name: &'static str,
    file: PathBuf,
    process: Process,
}

impl Capture {
    /// tcpdump, which flushes each packet to a pcap file.
    fn tcpdump(network: &Network, work: &Workdir) -> Capture {
        let file = work.join("tcpdump.pcap");
        let mut command = Command::new("tcpdump");
        command.args(["-i", network.interface(), "-U", "-w"]).arg(&file);
        if geteuid().is_root() {
            // Otherwise it changes to a user who may not write here.
            command.args(["-Z", "root"]);
        }
        Capture::start(network, command.arg("udp"), "+447700900123-2-3_21_11_2026_20:59:41.pcap", file)
    }

    /// dumpcap, which writes pcapng.
    fn dumpcap(network: &Network, work: &Workdir) -> Capture {
        let file = work.join("dumpcap.pcapng");
        let mut command = Command::new("dumpcap");
        command.args(["-q", "-i", network.interface(), "-f", "udp", "-w"]).arg(&file);
        Capture::start(network, &mut command, "+447700900456-2-3_21_11_2026_20:59:41.pcapng", file)
    }

    /// Starts it and waits until it captures.
    fn start(network: &Network, command: &mut Command, name: &'static str, file: PathBuf) -> Capture {
        let mut process = network.start(Side::Callee, command.stdin(Stdio::null()).stdout(Stdio::null()));
        process.wait_line(DEADLINE, "the start of the capture (it needs root)", |line| {
            (line.contains("listening on") || line.starts_with("File: ")).then_some(())
        });
        wait_until(DEADLINE, "the capture's file", || file.exists());
        Capture { name, file, process }
    }

    /// Waits until the ends of all calls are in the file, and stops the capture.
    fn finish(&mut self, calls: usize) {
        // A BYE and its reply.
        wait_until(DEADLINE, "the last call's end in the capture", || {
            count(&self.file, b"CSeq: 2 BYE") >= 2 * calls
        });
        self.process.signal(Signal::INT);
        self.process.wait_code(DEADLINE, 0);
    }
}

/// One side of the calls.
struct Sip {
    process: Process,
    port: u16,
}

impl Sip {
    /// Starts SIPp to answer `calls` calls and to echo their audio. Returns when it listens.
    fn callee(network: &Network, work: &Workdir, calls: usize) -> Sip {
        let mut command = Sip::command(network, Side::Callee, work);
        let port = free_port();
        command.args(["-p", &port.to_string(), "-m", &calls.to_string(), "-rtp_echo"]);
        command.args(["-mp", &free_port().to_string()]);
        let process = network.start(Side::Callee, &mut command);
        // The UDP table of the network namespace: local address and port in hexadecimal.
        let (table, entry) =
            (format!("/proc/{}/net/udp", process.id()), format!(":{port:04X} 00000000:0000"));
        wait_until(DEADLINE, "the callee", || {
            fs::read_to_string(&table).is_ok_and(|udp| udp.contains(&entry))
        });
        Sip { process, port }
    }

    /// Starts SIPp to make the calls. It ends after the last one.
    fn caller(network: &Network, work: &Workdir, callee: &Sip, form: &Form) -> Sip {
        // One second of a quiet tone in A-law, with 8,000 samples per second. The scenario repeats it.
        let wave = [0xd5, 0xc5, 0xf5, 0xc5, 0xd5, 0x45, 0x75, 0x45];
        work.write("audio.alaw", wave.repeat(1000 * form.talk.as_secs() as usize));
        let mut command = Sip::command(network, Side::Caller, work);
        let port = free_port();
        command.args(["-p", &port.to_string(), "-m", &form.calls.to_string()]);
        command.args(["-r", &form.calls_per_second.to_string(), "-d", &form.talk.as_millis().to_string()]);
        command.arg(format!("{}:{}", network.addr(Side::Callee), callee.port));
        Sip { process: network.start(Side::Caller, &mut command), port }
    }

    fn command(network: &Network, side: Side, work: &Workdir) -> Command {
        let scenario = match side {
            Side::Caller => "caller.xml",
            Side::Callee => "callee.xml",
        };
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sipp").join(scenario));
        command.args(["-i", network.addr(side), "-mi", network.addr(side), "-nostdin"]);
        command.current_dir(work.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Returns a free UDP port.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
