//! The kit of the integration tests: directories, servers, senders, tools, time, random numbers. Each wait
//! has a deadline and names what it waits for. Each process ends when its owner is dropped, also after a
//! failure.

pub(crate) mod broker;
pub(crate) mod capture;
pub(crate) mod events;
pub(crate) mod generated;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod rabbit;
pub(crate) mod random;
pub(crate) mod relay;
pub(crate) mod search_node;
pub(crate) mod sender;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod stored;
pub(crate) mod tmpfs;
pub(crate) mod tools;
pub(crate) mod workdir;
pub(crate) mod wrapped;

use std::time::{Duration, Instant};

pub(crate) use broker::Broker;
pub(crate) use events::Events;
pub(crate) use rabbit::Rabbit;
pub(crate) use random::Random;
pub(crate) use sender::{Handshake, Sender};
pub(crate) use server::Server;
pub(crate) use tools::{kafka_python_sender, kafkajs, lea, python, tshark_fields, tshark_ok, unpacked};
pub(crate) use workdir::{Workdir, assert_same, manifest, testdata, wait_closed};

/// How long a test waits for something that takes milliseconds on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Interval at which a condition is checked.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Returns true for the long form of each scenario (`scripts/test.sh --long`).
pub(crate) fn long() -> bool {
    std::env::var_os("LEA_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Waits until `condition` holds. After the deadline the test fails and names what it waited for.
#[track_caller]
pub(crate) fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(deadline, what, || condition().then_some(()));
}

/// Waits until `look` returns a value. After the deadline the test fails and names what it waited for.
#[track_caller]
pub(crate) fn wait_for<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}
