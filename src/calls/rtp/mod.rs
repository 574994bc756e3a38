//! RTP and RTCP: what a packet is, statistics of a stream, digits, reports of the receivers, and quality.
//!
//! Nothing here knows calls or files. A stream is the packets of one SSRC in one flow; its state is [`StreamState`].

mod capture_loss;
mod events;
mod header;
mod jitter;
mod payload_types;
mod quality;
mod recent;
mod reports;
mod rtcp;
mod sequence;
mod stream;
mod stream_view;
mod windows;

#[cfg(test)]
mod generator;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tshark;

pub(crate) use capture_loss::CaptureLoss;
pub(crate) use header::{Kind, RtpHeader, classify};
pub(crate) use payload_types::{Format, Role};
pub(crate) use reports::ReceiverReports;
pub(crate) use rtcp::{Report, RtcpKind, parse_rtcp};
pub(crate) use stream::{Outcome, RtpPacket, StreamState};
pub(crate) use stream_view::StreamContext;
pub(crate) use windows::Window;
