//! Baseline of the throughput benchmark: the least work that a receiver can do.
//!
//! `bare_loop DIR N` accepts N connections with one thread each and copies their bytes into DIR/0 .. DIR/N-1,
//! with one read and one write of 256 KiB at a time. No names, no packets, no hashes, no limits. It exits
//! after the last connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

const BUFFER_BYTES: usize = 256 * 1024;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(Ok(connections))) = (args.next(), args.next().map(|n| n.parse::<u32>())) else {
        return Err(io::Error::other("usage: bare_loop DIR N"));
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    lea::runtime::logging::status_line(format_args!(
        "listening addr={} listener=tcp",
        listener.local_addr()?
    ));
    thread::scope(|scope| {
        let mut copies = Vec::new();
        for number in 0..connections {
            let (stream, _) = listener.accept()?;
            let file = File::create(Path::new(&dir).join(number.to_string()))?;
            copies.push(scope.spawn(move || copy(stream, file)));
        }
        copies
            .into_iter()
            .try_for_each(|copy| copy.join().map_err(|_| io::Error::other("a thread failed"))?)
    })
}

fn copy(mut stream: TcpStream, mut file: File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => file.write_all(&buffer[..read])?,
        }
    }
}
