//! A TCP relay to a server that can be paused or closed. It forwards bytes unchanged, with one thread per
//! direction.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let held = self.held.lock().unwrap();
        drop(self.opened.wait_while(held, |held| *held).unwrap());
    }
}

/// A relay. It accepts connections as long as the process lives.
pub(crate) struct Relay {
    addr: SocketAddr,
    gate: Arc<Gate>,
}

impl Relay {
    /// Starts a relay to a server.
    pub(crate) fn start(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, gate) = (listener.local_addr().unwrap(), Arc::new(Gate::default()));
        let passes = Arc::clone(&gate);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let pair = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, to) in [(client, server), (pair.1, pair.0)] {
                    let gate = Arc::clone(&passes);
                    thread::spawn(move || copy(from, to, &gate));
                }
            }
        });
        Relay { addr, gate }
    }

    /// Returns the address on which the relay listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Pauses forwarding. Connections stay open.
    pub(crate) fn hold(&self) {
        *self.gate.held.lock().unwrap() = true;
    }

    /// Resumes forwarding, including the bytes that were held.
    pub(crate) fn release(&self) {
        *self.gate.held.lock().unwrap() = false;
        self.gate.opened.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.release();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        gate.pass();
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            // This also ends the other direction.
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}
