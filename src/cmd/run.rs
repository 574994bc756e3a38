//! `lea run`: everything that the configuration enables, in one process.

use super::service::{self, Service, ServiceArgs};
use crate::cli::Globals;
use crate::{Error, Exit, Result};

/// Run everything that the configuration enables
///
/// Today that is streams over TCP (`tcpServer`). SIGINT, SIGTERM and SIGHUP end it in good order.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    service: ServiceArgs,
}

impl Args {
    /// Runs until a signal.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.start(globals)?;
        if config.kafka.is_some() {
            log::warn!("kafka_not_available note=\"this version receives over TCP alone\"");
        }
        let Some(listen) = &config.tcp else {
            return Err(Error::Usage(
                "the configuration enables nothing that this version receives: set tcpServer (lea configure -t ADDRESS -u PORT)"
                    .to_owned(),
            ));
        };
        Service::resolve(service::addresses(listen)?, self.service)?.run()
    }
}
