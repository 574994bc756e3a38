//! Makes a capture of many calls at once, for the benchmark of `lea calls`: SIP over UDP, and G.711 in both directions.
//!
//! Each call lasts for the whole capture. The same options give the same file. The output is one line with what the
//! capture has: calls, streams, packets, and the packets that were left out of streams as lost.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Parser;

const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const PCAP_VERSION: u32 = 0x0004_0002;
const ETHERNET: u32 = 1;
const RTP_RECORD_BYTES: u64 = 16 + 14 + 20 + 8 + 12 + PAYLOAD_BYTES as u64;
/// 20 ms of G.711.
const PAYLOAD_BYTES: usize = 160;
const PACKET_US: u64 = 20_000;
/// 2026-11-21T20:00:00Z.
const START_US: u64 = 1_795_291_200_000_000;

/// Make a capture of many calls at once
#[derive(Debug, Parser)]
struct Args {
    /// Capture to write
    output: PathBuf,
    /// Size of the capture in MiB, about
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Number of calls at once
    #[arg(long, default_value_t = 200)]
    calls: u32,
    /// Packets that are lost, of 1,000
    #[arg(long, default_value_t = 0)]
    loss: u64,
}

/// Writes packets as records of a pcap file.
struct Capture {
    file: BufWriter<File>,
    bytes: u64,
    packets: u64,
    ip_id: u16,
}

impl Capture {
    fn create(args: &Args) -> io::Result<Capture> {
        let file = BufWriter::with_capacity(1 << 20, File::create(&args.output)?);
        let mut capture = Capture { file, bytes: 24, packets: 0, ip_id: 0 };
        for word in [PCAP_MAGIC, PCAP_VERSION, 0, 0, 65_535, ETHERNET] {
            capture.file.write_all(&word.to_le_bytes())?;
        }
        Ok(capture)
    }

    /// Writes a UDP datagram from one host to the other, with the same port number on both sides.
    fn datagram(&mut self, time_us: u64, hosts: [[u8; 4]; 2], port: u16, payload: &[u8]) -> io::Result<()> {
        let udp_bytes = 8 + payload.len() as u16;
        let frame_bytes = 14 + 20 + u32::from(udp_bytes);
        let time = [(time_us / 1_000_000) as u32, (time_us % 1_000_000) as u32, frame_bytes, frame_bytes];
        for word in time {
            self.file.write_all(&word.to_le_bytes())?;
        }
        self.ip_id = self.ip_id.wrapping_add(1);
        let mut header = [0_u8; 42];
        header[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        header[14..18].copy_from_slice(&[0x45, 0, 0, 0]);
        header[16..18].copy_from_slice(&(20 + udp_bytes).to_be_bytes());
        header[18..20].copy_from_slice(&self.ip_id.to_be_bytes());
        (header[22], header[23]) = (64, 17);
        header[26..30].copy_from_slice(&hosts[0]);
        header[30..34].copy_from_slice(&hosts[1]);
        header[34..36].copy_from_slice(&port.to_be_bytes());
        header[36..38].copy_from_slice(&port.to_be_bytes());
        header[38..40].copy_from_slice(&udp_bytes.to_be_bytes());
        self.file.write_all(&header)?;
        self.file.write_all(payload)?;
        self.bytes += 16 + u64::from(frame_bytes);
        self.packets += 1;
        Ok(())
    }
}

/// One of the calls. Its number makes its addresses, ports and telephone numbers.
struct Call {
    number: u32,
    sequences: [u16; 2],
}

impl Call {
    fn hosts(&self) -> [[u8; 4]; 2] {
        let [_, _, high, low] = self.number.to_be_bytes();
        [[198, 18, high, low], [198, 19, high, low]]
    }

    fn port(&self) -> u16 {
        10_000 + 2 * (self.number % 20_000) as u16
    }

    /// Writes a SIP message. `start` is its first line, `from_caller` its direction.
    fn message(
        &self,
        capture: &mut Capture,
        time_us: u64,
        from_caller: bool,
        start: &str,
        cseq: &str,
    ) -> io::Result<()> {
        let hosts = self.hosts();
        let [caller, callee] = hosts.map(|host| std::net::Ipv4Addr::from(host).to_string());
        let has_sdp = start.starts_with("INVITE") || start == "SIP/2.0 200 OK" && cseq == "1 INVITE";
        let address = if from_caller { &caller } else { &callee };
        let body = match has_sdp {
            true => format!(
                "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {} RTP/AVP 8\r\n\
                 a=rtpmap:8 PCMA/8000\r\n",
                self.port()
            ),
            false => String::new(),
        };
        let kind = if has_sdp { "Content-Type: application/sdp\r\n" } else { "" };
        let to_tag = if start.starts_with("INVITE") { "" } else { ";tag=b" };
        let (from, to) = (100 + self.number % 100, 500 + self.number % 400);
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP {caller}:5060;branch=z9hG4bK{}{}\r\n\
             From: <sip:+447700900{from}@{caller}>;tag=a\r\nTo: <sip:+447700900{to}@{callee}>{to_tag}\r\n\
             Call-ID: call-{}@{caller}\r\nCSeq: {cseq}\r\nMax-Forwards: 70\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.number,
            cseq.replace(' ', ""),
            self.number,
            body.len(),
        );
        let hosts = if from_caller { hosts } else { [hosts[1], hosts[0]] };
        capture.datagram(time_us, hosts, 5060, text.as_bytes())
    }

    /// Writes an RTP packet of one side.
    fn packet(&mut self, capture: &mut Capture, time_us: u64, side: usize, round: u64) -> io::Result<()> {
        let mut payload = [0xd5_u8; 12 + PAYLOAD_BYTES];
        (payload[0], payload[1]) = (0x80, 8);
        payload[2..4].copy_from_slice(&self.sequences[side].to_be_bytes());
        payload[4..8].copy_from_slice(&((round * PAYLOAD_BYTES as u64) as u32).to_be_bytes());
        payload[8..12].copy_from_slice(&(2 * self.number + side as u32 + 1).to_be_bytes());
        let [caller, callee] = self.hosts();
        let hosts = if side == 0 { [caller, callee] } else { [callee, caller] };
        capture.datagram(time_us, hosts, self.port(), &payload)
    }
}

/// Numbers that look random, the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut capture = Capture::create(&args)?;
    let mut calls: Vec<Call> =
        (0..args.calls).map(|number| Call { number, sequences: [number as u16, 65_000] }).collect();
    for call in &calls {
        let at = |ms: u64| START_US + 1_000 * ms + u64::from(call.number);
        call.message(&mut capture, at(0), true, "INVITE sip:b@example.com SIP/2.0", "1 INVITE")?;
    }
    for (ms, from_caller, start, cseq) in [
        (50, false, "SIP/2.0 180 Ringing", "1 INVITE"),
        (100, false, "SIP/2.0 200 OK", "1 INVITE"),
        (150, true, "ACK sip:b@example.com SIP/2.0", "1 ACK"),
    ] {
        for call in &calls {
            let time_us = START_US + 1_000 * ms + u64::from(call.number);
            call.message(&mut capture, time_us, from_caller, start, cseq)?;
        }
    }
    let rounds = (args.mib << 20) / (RTP_RECORD_BYTES * 2 * u64::from(args.calls));
    let (mut random, mut lost, mut time_us) = (Random(0x5eed), 0, START_US + 200_000);
    for round in 0..rounds {
        for (index, call) in calls.iter_mut().enumerate() {
            for side in 0..2 {
                // The first and the last packet of a stream are never lost: nobody could tell.
                let is_lost = round > 0 && round + 1 < rounds && random.below(1_000) < args.loss;
                let offset_us = (2 * index + side) as u64 * PACKET_US / (2 * u64::from(args.calls));
                match is_lost {
                    true => lost += 1,
                    false => call.packet(&mut capture, time_us + offset_us, side, round)?,
                }
                call.sequences[side] = call.sequences[side].wrapping_add(1);
            }
        }
        time_us += PACKET_US;
    }
    for (start, from_caller) in [("BYE sip:b@example.com SIP/2.0", true), ("SIP/2.0 200 OK", false)] {
        for call in &calls {
            time_us += 1;
            call.message(&mut capture, time_us, from_caller, start, "2 BYE")?;
        }
    }
    capture.file.flush()?;
    let (bytes, packets, streams) = (capture.bytes, capture.packets, 2 * args.calls);
    let line =
        format!("calls={} streams={streams} packets={packets} lost={lost} bytes={bytes}\n", args.calls);
    io::stdout().write_all(line.as_bytes())
}
