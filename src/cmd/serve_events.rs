//! `lea serve-events`: receives events, and stream content as lines. Resolves its options in the main thread; the
//! listeners have their own threads.

use crate::cmd::Command;
use crate::cmd::args::events::EventArgs;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::service::ServiceArgs;
use crate::cmd::args::sources::SourceArgs;
use crate::manual::{self, Example, Manual};
use crate::{Error, Exit, Result};

/// Receive call events and fraud attempts
///
/// Events arrive as JSON lines, as syslog messages, from a RabbitMQ queue, or over HTTP in Elasticsearch's API. They are
/// stored in the event store of the output directory (DIR/.lea) or in a cluster, where `lea search` and other query
/// commands and HTTP clients find them. Lines with stream content become stream files, as with `lea serve-tcp`. Events that
/// cannot be stored are kept in DIR/.lea/event-dead-letters.jsonl.
///
/// Without a listener option, parameters.events of the configuration selects the listeners. SIGINT, SIGTERM or SIGHUP starts
/// an orderly shutdown; a second signal exits at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    events: EventArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        success: manual::SERVER_SUCCESS,
        exits: &[manual::INTERRUPTED],
        files: &[manual::OUTPUT_FILES, manual::EVENT_FILES],
        reads_configuration: true,
        examples: &[
            Example {
                text: "Receive JSON lines and syslog, and answer HTTP queries",
                command: "lea serve-events --lines 0.0.0.0:5959 --syslog udp:0.0.0.0:5514 --http 9200",
            },
            Example {
                text: "Store events in a cluster",
                command: "lea serve-events --http 9201 --cluster http://127.0.0.1:9200",
            },
            Example {
                text: "Consume a RabbitMQ queue",
                command: "lea serve-events --amqp amqp://127.0.0.1 --amqp-queue rows",
            },
        ],
        see_also: &[
            "lea-run(1)",
            "lea-search(1)",
            "lea-events-load(1)",
            "lea-events-test-pattern(1)",
            "lea.conf(5)",
        ],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        let settings = self.service.load_settings(globals)?;
        let Some(events) = self.events.resolve(&settings, Some(self.sources))? else {
            return Err(Error::Usage(format!(
                "nothing to listen on: give {}, or set parameters.events in the configuration",
                SourceArgs::option_list()
            )));
        };
        self.service.resolve(None, None, Some(events))?.run()
    }
}
