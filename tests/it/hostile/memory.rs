//! Memory, ended threads and memory maps that a peer can make `lea` keep.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::company::Company;
use super::content::pcap;
use super::crowd::{Crowd, connect};
use super::document::{Table, figures};
use super::ground::Ground;
use crate::support::{DEADLINE, long, wait_until};

const ETHERNET: u32 = 1;
const USB: u32 = 249;

/// Memory besides partial packets and the process before it has peers: buffers (8.5 MiB), allocator overhead, pages of the
/// program that are touched later.
const BESIDE_KB: u64 = 20 << 10;

/// Memory of one stream: the touched pages of its stack and its state.
const STREAM_KB: u64 = 24;

#[test]
fn begun_packets_have_a_ceiling() {
    /// Bytes sent of a packet of 256 KiB.
    const SENT: usize = 200_000;
    let (count, ceiling_mib) = if long() { (3000, 64) } else { (200, 8) };
    let mut table = Table::new("memory");
    let mut lines = Vec::new();
    let mut ground = Ground::new(&["--partial-packet-memory", &format!("{ceiling_mib}M")]);
    let before = ground.memory_kb("VmRSS");
    let company = Company::start(&ground, "giant", 2);
    let mark = ground.mark();
    let mut crowd = Crowd::new();
    let content = pcap(ETHERNET, 262_144, &vec![7; SENT]);
    crowd.come(ground.addr(), count, |number| [format!("giant-{number}\n").as_bytes(), &content].concat());
    wait_until(4 * DEADLINE, "all to be received", || {
        ground.grown(&mark, "received_bytes_total") >= (count * content.len()) as u64
    });
    let pending = ground.counter("partial_packet_bytes");
    let most = ground.memory_kb("VmHWM");
    drop(crowd);
    let since = ground.since(&mark, count);
    let delays = company.end();
    assert!(pending <= ceiling_mib << 20, "{pending} bytes wait");
    let allowed = before + (ceiling_mib << 10) + BESIDE_KB + count as u64 * STREAM_KB;
    assert!(most <= allowed, "{most} kB of memory; allowed are {allowed}");
    let whole = since.files.iter().filter(|(_, manifest)| {
        manifest.bytes == content.len() as u64 && manifest.capture.truncated_bytes == 16 + SENT as u64
    });
    assert_eq!(whole.count(), count);
    assert!(since.counters["partial_packets_flushed_total"] > 0);
    table.row(
        "200 streams (3,000 in the long form), each with 200,000 bytes of a packet of 256 KiB, connections stay open",
        "beyond `--partial-packet-memory` the largest are written; at the end each file is complete",
        "`partial_packets_flushed_total` grows",
    );
    lines.push(format!(
        "{count} streams with {SENT} bytes of a partial packet each: {} MiB received, {} MiB in memory with a limit of \
         {ceiling_mib} MiB, RSS at most {} MiB. Meanwhile {}",
        (count * content.len()) >> 20,
        pending >> 20,
        most >> 10,
        delays.told()
    ));
    ground.end();
    check_full_disk(&mut table, &mut lines);
    check_threads(&mut table, &mut lines);
    table.check();
    figures("memory-figures", &lines);
}

/// The disk accepts nothing, and peers send packets of 128 MiB until they are blocked.
fn check_full_disk(table: &mut Table, lines: &mut Vec<String>) {
    const PEERS: usize = 4;
    let mut ground = Ground::new(&["--partial-packet-memory", "8M", "--reserve-disk", "1000T"]);
    let before = ground.memory_kb("VmRSS");
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..PEERS {
            let stream = connect(ground.addr(), number);
            let (over, sent) = (&over, &sent);
            scope.spawn(move || flood(stream, number, over, sent));
        }
        let (mut last, mut since) = (0, Instant::now());
        wait_until(DEADLINE, "the senders to be held up", || {
            let now = sent.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_secs(1) || now > 2 << 30
        });
        over.store(true, Ordering::Relaxed);
    });
    let (most, sent) = (ground.memory_kb("VmHWM"), sent.into_inner());
    let allowed = before + (8 << 10) + BESIDE_KB;
    assert!(most <= allowed, "{most} kB of memory after {sent} bytes; allowed are {allowed}");
    table.row(
        "4 streams of USB packets that claim 128 MiB, at top speed, on a full disk",
        "the streams wait and TCP slows the senders down; memory stays below its limit",
        "`write_retries_total` grows",
    );
    assert!(ground.counter("write_retries_total") > 0);
    lines.push(format!(
        "4 streams of packets of 128 MiB on a full disk: {} MiB read before they were stopped, RSS at most {} MiB",
        sent >> 20,
        most >> 10
    ));
    // Nothing can be stored, and a clean shutdown would report that and exit with 1.
    ground.server.kill9();
}

fn flood(mut stream: TcpStream, number: usize, over: &AtomicBool, sent: &AtomicU64) {
    stream.write_all(format!("usb-{number}\n").as_bytes()).unwrap();
    let packets = [pcap(USB, 128 << 20, &[]), vec![0; 256 << 10]].concat();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    while !over.load(Ordering::Relaxed) && sent.load(Ordering::Relaxed) <= 2 << 30 {
        match stream.write(&packets[..]) {
            Ok(bytes) => sent.fetch_add(bytes as u64, Ordering::Relaxed),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => panic!("{error}"),
        };
    }
}

/// An ended thread keeps its stack until it is joined. Above vm.max_map_count the standard library aborts the
/// process.
fn check_threads(table: &mut Table, lines: &mut Vec<String>) {
    // First as many streams as stay below the limit, then enough short ones to exceed it if stacks were kept.
    let (stay, come_and_go) = if long() { (15_000, 20_000) } else { (600, 600) };
    let mut ground = Ground::new(&["--handshake-timeout", "600000ms"]);
    let before = ground.maps();
    let mark = ground.mark();
    let mut crowd = Crowd::new();
    crowd.come(ground.addr(), stay, |_| Vec::new());
    wait_until(4 * DEADLINE, "all to have a thread", || ground.counter("streams_open") == stay as u64);
    for number in 0..come_and_go {
        drop(connect(ground.addr(), number));
    }
    wait_until(4 * DEADLINE, "the end of those that go", || {
        ground.grown(&mark, "connections_rejected_total") == come_and_go as u64
    });
    drop(connect(ground.addr(), 0));
    wait_until(4 * DEADLINE, "the end of the last", || {
        ground.grown(&mark, "connections_rejected_total") == come_and_go as u64 + 1
    });
    let maps = ground.maps();
    // A running thread has 4 maps. The C library keeps 40 MiB of stacks for new threads.
    let allowed = before + 4 * (stay + 1) + 2 * (40 << 10) / 128 + 64;
    assert!(maps <= allowed, "{maps} memory maps; allowed are {allowed}");
    let most = ground.memory_kb("VmHWM");
    drop(crowd);
    let since = ground.since(&mark, stay + come_and_go + 1);
    table.row(
        "as many connections as memory maps allow, and many more short ones (15,000 and 20,000 in the long form)",
        "each thread is joined after its end, and no maps are left over",
        since.counted(stay + come_and_go + 1),
    );
    lines.push(format!(
        "{stay} silent connections, {come_and_go} more short ones: {maps} memory maps, RSS at most {} MiB",
        most >> 10
    ));
    ground.end();
}
