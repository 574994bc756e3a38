//! `lea serve-events`: receives events, and content of streams that comes as lines.

use super::event_service::{EventArgs, EventConfig, ListenArgs};
use super::service::{Service, ServiceArgs};
use crate::cli::Globals;
use crate::{Error, Exit, Result};

/// Receive events: call information, fraud attempts
///
/// Events come as JSON lines, as syslog, and over HTTP in Elasticsearch's dialect; they are stored in DIR/.lea, where
/// lea search and its like find them, and answered to whoever asks over HTTP. Lines with content of streams become
/// stream files, as with serve-tcp. What cannot be used is kept in DIR/.lea/event-dead-letters.jsonl. SIGINT, SIGTERM and
/// SIGHUP end it in good order.
///
/// Without an option that listens, what the configuration says under parameters.events is received.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    events: EventArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

impl Args {
    /// Receives until a signal.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.start(globals)?;
        let Some(events) = EventConfig::resolve(&config, Some(&self.listen), &self.events)? else {
            return Err(Error::Usage(
                "nothing to listen on: give --lines, --data-lines, --syslog or --http, or set parameters.events in the \
                 configuration"
                    .to_owned(),
            ));
        };
        Service::resolve(self.service, None, None, Some(events))?.run()
    }
}
