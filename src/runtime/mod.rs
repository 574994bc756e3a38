//! runtime

pub mod logging;
pub mod metrics;
pub mod shutdown;
pub(crate) mod terminal;
