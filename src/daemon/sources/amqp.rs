//! Events and billing rows from a RabbitMQ queue.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{IngestSource, SourceContext, SourceKind, SourceOption};
use crate::Result;
use crate::iri::ingest::amqp::{self, AmqpConfig};

pub(super) static AMQP: SourceKind = SourceKind {
    key: "amqp",
    options: &[
        SourceOption {
            long: "amqp",
            key: "url",
            value_name: "URL",
            env: Some("LEA_AMQP"),
            help: "Consume events and billing rows from RabbitMQ at amqp://USER:PASSWORD@HOST:PORT/VHOST, one JSON object \
                   per message; set the environment variable to keep the password out of the process list",
        },
        SourceOption {
            long: "amqp-queue",
            key: "queue",
            value_name: "NAME",
            env: None,
            help: "Name of an existing RabbitMQ queue",
        },
    ],
    is_list: false,
    parse: |values| {
        let [url, queue] = values else { return Err("expected a URL and a queue".to_owned()) };
        Ok(Arc::new(Amqp(AmqpConfig::parse(url, queue)?)))
    },
};

#[derive(Debug)]
struct Amqp(AmqpConfig);

impl fmt::Display for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "amqp {} queue {:?}", self.0.url, self.0.queue)
    }
}

impl IngestSource for Amqp {
    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
        let indices = Arc::new(context.settings.indices.clone());
        let shutdown = context.listeners.shutdown.clone();
        Ok(vec![amqp::start(self.0.clone(), Arc::clone(&context.sink), indices, shutdown)?])
    }
}
