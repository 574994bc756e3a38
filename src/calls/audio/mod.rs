//! Audio of a call: from RTP payloads to a WAV file on the capture's clock, to Ogg Opus, or to a file of the codec's
//! frames.
//!
//! Audio of any length needs bounded memory, in two steps. A [`PlanBuilder`] takes the headers of a call's packets in
//! file order and gives a [`Plan`]: which packet is heard at which sample. A [`Renderer`] then makes the samples of
//! any range and reads only the payloads of that range.

mod amr;
mod anchor;
mod codec;
mod g711;
mod g722;
mod l16;
mod ogg;
mod opus;
mod plan;
mod raw;
mod render;
mod resample;
mod timeline;
mod wav;

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod render_tests;
#[cfg(test)]
mod sample_tests;
#[cfg(test)]
mod test_calls;

pub(crate) use codec::AudioCodec;
pub(crate) use ogg::OpusFile;
pub(crate) use plan::{Plan, PlanCounts};
pub(crate) use raw::RawFormat;
pub(crate) use render::{Output, Renderer};
pub(crate) use timeline::{AudioPacket, PlanBuilder};
pub(crate) use wav::WavFile;
