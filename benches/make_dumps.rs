//! Generates dumps for `scripts/bench-decode.sh`: `make_dumps DIR CAPTURE STREAMS MIB` writes the same
//! records as `values` (one value per line), `kcat` (envelopes of `kcat -J`) and
//! `bench-0/00000000000000000000.log` (a raw segment), MIB mebibytes each. The streams take turns. Each
//! record has 3,000 bytes of its stream, which are 4 kB of base64.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const CHUNK_BYTES: usize = 3_000;

/// Records per batch: with 4 kB each, a batch has 256 kB.
const BATCH_RECORDS: usize = 64;

/// Size of a pcap file header.
const FILE_HEADER_BYTES: usize = 24;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, capture, streams, mib] = &args[..] else {
        return Err("usage: make_dumps DIR CAPTURE STREAMS MIB".into());
    };
    let (dir, capture, streams) = (Path::new(dir), fs::read(capture)?, streams.parse()?);
    let bytes = mib.parse::<u64>()? << 20;
    fs::create_dir_all(dir.join("bench-0"))?;
    text(&dir.join("values"), &capture, streams, bytes, |value, _, line| {
        line.extend_from_slice(value.as_bytes());
    })?;
    text(&dir.join("kcat"), &capture, streams, bytes, |value, offset, line| {
        let payload = value.replace('"', "\\\"");
        line.extend_from_slice(
            format!(
                r#"{{"topic":"bench","partition":0,"offset":{offset},"tstype":"create","ts":1,"broker":0,"key":null,"payload":"{payload}"}}"#
            )
            .as_bytes(),
        );
    })?;
    segment(&dir.join("bench-0/00000000000000000000.log"), &capture, streams, bytes)
}

/// Builds the value of the record with this offset. Each stream is the capture's header, followed by its
/// packets in a loop.
fn value(capture: &[u8], streams: u64, offset: u64) -> String {
    let (stream, nth) = (offset % streams, (offset / streams) as usize);
    let (header, packets) = capture.split_at(FILE_HEADER_BYTES);
    let at = (nth * CHUNK_BYTES).saturating_sub(FILE_HEADER_BYTES) % packets.len();
    let mut chunk = if nth == 0 { header.to_vec() } else { Vec::new() };
    let wanted = CHUNK_BYTES - chunk.len();
    chunk.extend(packets.iter().cycle().skip(at).take(wanted));
    let data = STANDARD.encode(chunk);
    format!(
        r#"{{"userid": "+447700900123", "data": "{data}", "interceptionfilename": "stream-{stream}.pcap"}}"#
    )
}

fn text(
    path: &Path,
    capture: &[u8],
    streams: u64,
    bytes: u64,
    write: impl Fn(&str, u64, &mut Vec<u8>),
) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut written, mut line) = (0, Vec::new());
    for offset in 0.. {
        if written >= bytes {
            break;
        }
        line.clear();
        write(&value(capture, streams, offset), offset, &mut line);
        line.push(b'\n');
        out.write_all(&line)?;
        written += line.len() as u64;
    }
    Ok(out.flush()?)
}

/// Writes uncompressed record batches of format v2 (Kafka's protocol guide, "Record Batch").
fn segment(path: &Path, capture: &[u8], streams: u64, bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut written, mut base_offset) = (0, 0);
    while written < bytes {
        let mut records = Vec::new();
        for delta in 0..BATCH_RECORDS {
            let value = value(capture, streams, base_offset + delta as u64);
            // Attributes 0, timestamp 0, the offset, no key, the value, no headers.
            let mut record = vec![0, 0];
            varint(&mut record, delta as i64);
            varint(&mut record, -1);
            varint(&mut record, value.len() as i64);
            record.extend_from_slice(value.as_bytes());
            varint(&mut record, 0);
            varint(&mut records, record.len() as i64);
            records.extend_from_slice(&record);
        }
        let mut checked = Vec::new();
        checked.extend_from_slice(&0i16.to_be_bytes());
        checked.extend_from_slice(&(BATCH_RECORDS as i32 - 1).to_be_bytes());
        checked.extend_from_slice(&[0; 16]);
        checked.extend_from_slice(&(-1i64).to_be_bytes());
        checked.extend_from_slice(&(-1i16).to_be_bytes());
        checked.extend_from_slice(&(-1i32).to_be_bytes());
        checked.extend_from_slice(&(BATCH_RECORDS as i32).to_be_bytes());
        checked.extend_from_slice(&records);
        // The length includes the leader epoch, the format version and the checksum.
        let length = 4 + 1 + 4 + checked.len();
        out.write_all(&base_offset.to_be_bytes())?;
        out.write_all(&i32::try_from(length)?.to_be_bytes())?;
        out.write_all(&0i32.to_be_bytes())?;
        out.write_all(&[2])?;
        out.write_all(&crc32c::crc32c(&checked).to_be_bytes())?;
        out.write_all(&checked)?;
        written += 12 + length as u64;
        base_offset += BATCH_RECORDS as u64;
    }
    Ok(out.flush()?)
}

/// Writes a zigzag varint: seven bits per byte, lowest first.
fn varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
