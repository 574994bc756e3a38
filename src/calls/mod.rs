//! Calls inside captures: signalling (SIP), media (RTP), quality and audio.
//!
//! `engine` takes packets and keeps the state of an analysis; it is pure, like all it uses: `packet` peels a packet down to
//! UDP and TCP, `sip`, `sdp` and `dialog` make calls of messages, `rtp` and `media` make streams of packets and assign
//! them to calls. `analysis` reads a capture through it, and keeps the result beside the capture. `view` is what commands,
//! the event store and the page see of a call.

pub(crate) mod analysis;
pub(crate) mod audio;
pub(crate) mod capture_file;
pub(crate) mod dialog;
pub(crate) mod document;
pub(crate) mod endpoint;
pub(crate) mod engine;
pub(crate) mod extract;
mod index;
pub(crate) mod ladder;
pub(crate) mod media;
pub(crate) mod packet;
pub(crate) mod rtp;
#[cfg(test)]
mod samples;
mod sdp;
mod sip;
pub(crate) mod view;
