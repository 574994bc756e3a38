//! Interface of a destination for streams. A destination gets a stream's name and its bytes in order, and
//! frames them in its own way.

use crate::Error;
use crate::replay::fault::Fault;
use crate::runtime::shutdown::Shutdown;

/// Destination, shared by all streams.
pub(crate) trait StreamSink: Sync {
    /// Checks that the receiver of a stream with this name and these first bytes gets the same name and all content.
    /// The error is the reason why it would not, and what to do.
    fn check_name(&self, name: &[u8], start: &[u8]) -> Result<(), String>;

    /// Starts a stream. When this returns, content can be sent.
    fn open(&self, name: &[u8], shutdown: &Shutdown) -> Result<Box<dyn StreamSender>, SendError>;
}

/// Stream that has been started.
pub(crate) trait StreamSender {
    /// Sends the next bytes, as one unit if the destination has units (a segment, a message). Blocks while
    /// the destination accepts nothing.
    fn send(&mut self, bytes: &[u8], shutdown: &Shutdown) -> Result<(), SendError>;

    /// Sends like [`send`](Self::send), with a fault of single records. `at` is the byte that was drawn for
    /// it. Called only for destinations that support such faults.
    fn send_faulty(
        &mut self,
        bytes: &[u8],
        _fault: Fault,
        _at: u64,
        shutdown: &Shutdown,
    ) -> Result<(), SendError> {
        self.send(bytes, shutdown)
    }

    /// Ends the stream, and waits until the destination confirms it, if it does.
    fn close(self: Box<Self>, how: CloseMode, shutdown: &Shutdown) -> Result<Delivery, SendError>;
}

/// What the sender knows about the bytes that it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The receiver has all of them.
    Confirmed,
    /// The own kernel has accepted them. How many the receiver has is unknown.
    Unknown,
}

/// Way in which a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseMode {
    /// Normal close.
    Orderly,
    /// Abrupt close: over TCP, a reset.
    Reset,
}

/// Reason why sending ended early.
#[derive(Debug)]
pub(crate) enum SendError {
    /// A shutdown was requested.
    Stopped,
    Failed(Error),
}

impl From<Error> for SendError {
    fn from(error: Error) -> SendError {
        SendError::Failed(error)
    }
}
