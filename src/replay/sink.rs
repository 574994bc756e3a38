//! A place to send streams to. What a place needs to know of a stream is its name and its bytes in order; how it
//! frames them is its own matter.

use crate::Error;
use crate::replay::fault::Fault;
use crate::stop::Stop;

/// A place to send to; one for all streams.
pub trait Sink: Sync {
    /// Begins a stream: when it returns, the first bytes can go.
    fn open(&self, name: &[u8], stop: &Stop) -> Result<Box<dyn Sender>, Broken>;
}

/// A begun stream.
pub trait Sender {
    /// Sends the next bytes, as one unit if the place has units (a segment, a message). Waits while the place is
    /// full.
    fn send(&mut self, bytes: &[u8], stop: &Stop) -> Result<(), Broken>;

    /// The same with a fault of single sends; `at` is the byte that it was drawn for. A place without such faults
    /// never gets them.
    fn send_faulty(&mut self, bytes: &[u8], _fault: Fault, _at: u64, stop: &Stop) -> Result<(), Broken> {
        self.send(bytes, stop)
    }

    /// Ends the stream. Where the place acknowledges, it waits for that.
    fn close(self: Box<Self>, how: Close, stop: &Stop) -> Result<(), Broken>;
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// In good order.
    Orderly,
    /// Abruptly: over TCP, a reset.
    Reset,
}

/// Why sending ended early.
#[derive(Debug)]
pub enum Broken {
    /// The stop was asked for.
    Stopped,
    /// It failed.
    Failed(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken::Failed(error)
    }
}
