//! Deletes events that are older than `keepDays` from the embedded store: the thread `retention`, once an hour.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::TimeDelta;

use crate::Result;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;
use crate::search::store::Store;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Starts the thread. It ends at the shutdown.
pub(super) fn start(
    keep_days: u32,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<JoinHandle<Result<()>>> {
    let (store, metrics, shutdown) = (Arc::clone(store), Arc::clone(metrics), shutdown.clone());
    threads::spawn("retention", move || {
        loop {
            purge(keep_days, &*store, &metrics);
            if shutdown.wait(INTERVAL) {
                return Ok(());
            }
        }
    })
}

fn purge(keep_days: u32, store: &dyn Store, metrics: &Metrics) {
    let before = crate::runtime::time::now() - TimeDelta::days(i64::from(keep_days));
    match store.purge(&[], before.timestamp_millis(), false) {
        Ok(purged) => {
            for (index, events) in purged {
                metrics.events_purged_total.add(events);
                log::info!(
                    "events_purged index={index} events={events} before={} reason=keep_days",
                    before.format("%FT%TZ")
                );
            }
        }
        Err(error) => log::warn!("purge_failed error=\"{error}\""),
    }
}
