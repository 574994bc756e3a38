//! The cluster as the store: Elasticsearch 7.17 to 9, OpenSearch 2 and 3.
//!
//! Reading (`ask`, in the dialect of `dsl`) asks the cluster; writing appends to a queue on the disk, which a thread of
//! its own ships.
//!
//! ```text
//! caller: event -> queue (log, one sync for many) -> answer     queue-ship: queue -> place -> bulk -> confirm
//! ```
//!
//! What stands in the cluster, for both sides: events of NAME are in a daily index `NAME-YYYY.MM.DD`, and the alias NAME
//! has all of them. Each source is the sender's, byte by byte, with one member more at its end:
//! `"lea":{"number":{"destNum":"+972598294121"},"time":"2026-11-22T10:11:12.345Z"}`. `lea.time` (a date) is there
//! always: the event's own time, else when it arrived. `lea.number.FIELD` (a keyword) is the number that the text in FIELD
//! means, and is there where it means one; FIELD has its path's dots replaced by `_`.

mod ask;
mod backoff;
mod bulk;
pub mod client;
pub mod dsl;
mod event;
mod place;
mod queue;
mod ship;
mod template;

use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use chrono::Utc;
use crossbeam_channel::{Receiver, Sender, bounded};

pub use client::{Answer, Body, Client, ClientError, Product, Server};
pub use queue::QueueConfig;
pub use ship::ShipConfig;

use self::event::Event;
use self::place::{Standing, Trouble};
use self::queue::{Payloads, Queue};
use self::ship::Shipper;
use self::template::Given;
use super::dead_letters::DeadLetters;
use super::{About, Index, Refused, Remote, Store, StoreError, Told, Written};
use crate::counters::Counters;
use crate::iri::document::{Document, index_name};
use crate::iri::mapping::Mapping;
use crate::iri::number::Families;
use crate::iri::query::{Found, Hit, Query, Search};
use crate::{Error, Result};

/// The object that is added to each source.
pub const ADDED: &str = "lea";

/// The date that each event has.
pub const ADDED_TIME: &str = "lea.time";

/// What stands before a field's name where its number is.
pub const ADDED_NUMBER: &str = "lea.number";

/// Days that an event may be older than its arrival and go into the index of its own day.
const DAYS_BACK: u32 = 30;

/// What the cluster gets at the end where nobody said how long it may take.
const DRAIN_DEFAULT: Duration = Duration::from_secs(2);

/// What both sides need.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Who is asked.
    pub client: Client,
    /// What a question may take.
    pub search_timeout: Duration,
    /// None: numbers are the text that they are.
    pub families: Option<Arc<Families>>,
}

/// How a cluster is the store.
#[derive(Clone, Debug)]
pub struct ElasticConfig {
    /// Who is asked.
    pub client: Client,
    /// What a question may take.
    pub search_timeout: Duration,
    /// None: numbers are the text that they are.
    pub families: Option<Arc<Families>>,
    /// The index of billing rows.
    pub billing_index: String,
    /// What the queue may take.
    pub queue: QueueConfig,
    /// How events are shipped.
    pub ship: ShipConfig,
}

/// How many events a folder's queue has that no cluster has confirmed; for a process that starts without one.
pub fn left_events(dir: &Path) -> Result<u64> {
    queue::left(&dir.join(".lea"))
}

/// A cluster as the store. Dropped last, it lets the cluster take what it can until [`Store::give_up_at`]; the rest stays
/// in the queue.
pub struct ElasticStore {
    cluster: Arc<Cluster>,
    given: Given,
    queue: Queue,
    keep_days: Option<u32>,
    /// The thread, and what ends with it.
    shipper: Option<(JoinHandle<()>, Receiver<()>)>,
}

impl ElasticStore {
    /// Opens the queue of a folder, whose lock this process holds, and starts to ship what is in it. The cluster may be
    /// away.
    pub fn open(
        dir: &Path,
        config: ElasticConfig,
        letters: Arc<DeadLetters>,
        counters: Arc<Counters>,
    ) -> Result<ElasticStore> {
        let ElasticConfig { client, search_timeout, families, billing_index, queue, ship } = config;
        let numbers = families.as_ref().map_or_else(Vec::new, |families| families.settings().fields.clone());
        let given = Given { numbers, billing_index };
        let (queue, confirmer) = Queue::open(&dir.join(".lea"), queue, Arc::clone(&counters))?;
        let cluster = Arc::new(Cluster { client: client.clone(), search_timeout, families });
        let shared = (Arc::clone(queue.shared()), confirmer);
        let shipper = Shipper::new(client, shared, given.clone(), letters, Arc::clone(&counters), ship)
            .map_err(Error::path("read the queue of", dir))?;
        let (ends, ended) = bounded::<()>(0);
        let thread = Builder::new().name("queue-ship".to_owned()).spawn(move || {
            let _ends = Ends(ends, counters);
            shipper.run();
        });
        let thread = thread.map_err(Error::system("start a thread"))?;
        Ok(ElasticStore { cluster, given, queue, keep_days: ship.keep_days, shipper: Some((thread, ended)) })
    }
}

impl Store for ElasticStore {
    /// An id that is the sender's may be there already; the cluster says so only later. So this says of each that it was
    /// created, and what comes under a taken id in [`Mode::Create`](crate::iri::document::Mode::Create) is passed over.
    fn write(&self, documents: Vec<Document>) -> Result<Vec<Result<Written, Refused>>, StoreError> {
        let arrived_ms = Utc::now().timestamp_millis();
        let days_back = self.keep_days.map_or(DAYS_BACK, |days| days.min(DAYS_BACK));
        let families = self.cluster.families.as_deref();
        let mut payloads = Payloads::default();
        let read = |document: &Document| {
            let event = Event::read(document, arrived_ms, days_back, families)?;
            payloads.add(|bytes| event.write(bytes));
            Ok(event.id)
        };
        let ids: Vec<Result<Option<String>, Refused>> = documents.iter().map(read).collect();
        drop(documents);
        let mut sequence = if payloads.is_empty() { 0 } else { self.queue.append(payloads)? };
        let log = self.queue.shared().log();
        let mut written = |id: Option<String>| {
            let id = id.unwrap_or_else(|| event::made_id(log, sequence));
            sequence += 1;
            Written { id, version: 1, sequence: sequence - 1, created: true }
        };
        Ok(ids.into_iter().map(|id| id.map(&mut written)).collect())
    }

    fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError> {
        self.cluster.get(index, id)
    }

    fn count(&self, indices: &[String], ignore_unavailable: bool, query: &Query) -> Result<u64, StoreError> {
        self.cluster.count(indices, ignore_unavailable, query)
    }

    fn search(&self, search: &Search) -> Result<Found, StoreError> {
        self.cluster.search(search)
    }

    fn indices(&self, indices: &[String]) -> Result<Vec<Index>, StoreError> {
        self.cluster.indices(indices)
    }

    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError> {
        index_name(index)
            .map_err(|why| StoreError::Invalid(format!("Invalid index name [{index}], {why}")))?;
        let client = &self.cluster.client;
        let (name, day) = event::split(index);
        place::server(client).map_err(failed)?;
        if place::standing(client, name).map_err(failed)? != Standing::Nothing {
            return Ok(false);
        }
        let made = place::put_template(client, name, &self.given, mapping).map_err(failed)?;
        let day = day.unwrap_or_else(|| event::day_of(Utc::now().timestamp_millis()));
        match place::make_index(client, &event::index(name, day)).map_err(failed)? {
            None => Ok(made),
            Some(reason) => Err(StoreError::Invalid(reason)),
        }
    }

    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError> {
        let client = &self.cluster.client;
        let (name, _) = event::split(index);
        place::add_mapping(client, index, mapping).map_err(|trouble| match trouble {
            Trouble::Answered { status: 404, .. } => StoreError::NoIndex(index.to_owned()),
            trouble => failed(trouble),
        })?;
        if place::standing(client, name).map_err(failed)? == Standing::Nothing {
            place::put_template(client, name, &self.given, mapping).map_err(failed)?;
        }
        Ok(())
    }

    fn give_up_at(&self, at: Instant) {
        self.queue.shared().give_up_at(at);
    }

    fn remote(&self) -> Option<&dyn Remote> {
        Some(self)
    }
}

impl Remote for ElasticStore {
    fn refresh(&self, indices: &[String], ignore_unavailable: bool) -> Result<(), StoreError> {
        let until = Instant::now() + self.cluster.search_timeout;
        if !self.queue.shared().wait_confirmed(until) {
            return Err(StoreError::TimedOut(self.cluster.search_timeout.as_millis() as u64));
        }
        self.cluster.refresh(indices, ignore_unavailable)
    }

    fn tell(
        &self,
        about: About,
        indices: &[String],
        parameters: &[(&str, &str)],
    ) -> Result<Told, StoreError> {
        self.cluster.tell(about, indices, parameters)
    }
}

/// The end of the shipper's thread. If it fails, what comes is in the queue all the same, and /health says that it stays
/// there.
struct Ends(#[allow(dead_code, reason = "its drop is the word")] Sender<()>, Arc<Counters>);

impl Drop for Ends {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.cluster_away.set(1);
            log::error!("queue_thread_failed note=\"events stay in the queue until the next start\"");
        }
    }
}

fn failed(trouble: Trouble) -> StoreError {
    match trouble {
        Trouble::Answered { status: 400, cause } => StoreError::Invalid(cause),
        Trouble::Away(error) => StoreError::Away(error.to_string()),
        trouble => StoreError::Failed { act: "change the cluster", cause: trouble.to_string() },
    }
}

impl Drop for ElasticStore {
    fn drop(&mut self) {
        self.queue.close();
        let shared = self.queue.shared();
        if shared.gives_up_at().is_none() {
            shared.give_up_at(Instant::now() + DRAIN_DEFAULT);
        }
        let Some((thread, ended)) = self.shipper.take() else { return };
        let at = shared.gives_up_at().unwrap_or_else(Instant::now);
        // A request that is on its way cannot be called back. Its thread is left behind then: a crash would do no more,
        // and that the queue survives.
        let grace = Duration::from_millis(200);
        if let Err(crossbeam_channel::RecvTimeoutError::Timeout) = ended.recv_deadline(at + grace) {
            log::warn!(
                "cluster_not_waited_for note=\"what it did not confirm is sent again at the next start\""
            );
        } else {
            // What went wrong was said where it did.
            let _ = thread.join();
        }
    }
}
