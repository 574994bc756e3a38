//! A sender that follows docs/protocol.md: a name in one of its forms, then content in chunks.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::DEADLINE;

/// Pause of real senders between the name and the content.
pub(crate) const NAME_PAUSE: Duration = Duration::from_secs(1);

/// Bytes per send of real senders.
pub(crate) const CHUNK_BYTES: usize = 100;

/// The end of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// The name in one send, then one second of silence.
    Gap,
    /// `\n` after the name.
    Newline,
    /// `\r\n` after the name.
    CrLf,
    /// No mark: the name and the first content are in one send.
    Joined,
}

/// One connection. TCP_NODELAY is set, so each send is one segment.
pub(crate) struct Sender {
    stream: TcpStream,
    /// The name, until the first content is sent with it.
    held: Vec<u8>,
}

impl Sender {
    /// Connects without sending anything.
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr) -> Sender {
        let stream =
            TcpStream::connect(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Sender { stream, held: Vec::new() }
    }

    /// Connects and sends the name.
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr, name: impl AsRef<[u8]>, handshake: Handshake) -> Sender {
        let name = name.as_ref();
        let mut sender = Sender::connect(addr);
        match handshake {
            Handshake::Gap => {
                sender.send(name);
                std::thread::sleep(NAME_PAUSE);
            }
            Handshake::Newline => sender.send(&[name, b"\n"].concat()),
            Handshake::CrLf => sender.send(&[name, b"\r\n"].concat()),
            Handshake::Joined => sender.held = name.to_owned(),
        }
        sender
    }

    /// Sends bytes in one send.
    #[track_caller]
    pub(crate) fn send(&mut self, content: &[u8]) {
        self.try_send(content).unwrap();
    }

    /// Sends bytes in one send, and returns an error if the receiver is gone.
    pub(crate) fn try_send(&mut self, content: &[u8]) -> io::Result<()> {
        if self.held.is_empty() {
            return self.stream.write_all(content);
        }
        self.held.extend_from_slice(content);
        let joined = std::mem::take(&mut self.held);
        self.stream.write_all(&joined)
    }

    /// Sends the content in sends of `chunk_bytes`.
    #[track_caller]
    pub(crate) fn send_chunks(&mut self, content: &[u8], chunk_bytes: usize) {
        content.chunks(chunk_bytes).for_each(|chunk| self.send(chunk));
    }

    /// Returns the client's address, as the receiver sees it.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Shuts down the sending direction.
    pub(crate) fn half_close(&mut self) {
        if !self.held.is_empty() {
            self.send(&[]);
        }
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Waits until the receiver closes. Returns true after a clean close, and false after a reset.
    #[track_caller]
    pub(crate) fn wait_close(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => panic!("the receiver sent something; it never does"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the receiver does not close: {error}"),
        }
    }

    /// Shuts down the sending direction and waits until the receiver has closed too.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.half_close();
        assert!(self.wait_close(), "the receiver reset a stream that had ended in order");
    }

    /// Resets the connection (SO_LINGER 0). Bytes in the send buffer are lost.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
