//! The kit of the integration tests: a folder, a server, a sender, tools, time, chance.
//!
//! What waits has a deadline and says what it waited for. What starts a process ends it, on failure too.
//
// A kit has parts that no test needs today.
#![allow(dead_code, unused_imports)]

pub mod broker;
pub mod capture;
pub mod events;
pub mod generated;
pub mod netns;
pub mod process;
pub mod random;
pub mod relay;
pub mod search_node;
pub mod sender;
pub mod server;
pub mod status;
pub mod stored;
pub mod tmpfs;
pub mod tools;
pub mod workdir;
pub mod wrapped;

use std::time::{Duration, Instant};

pub use broker::Broker;
pub use events::Events;
pub use random::Random;
pub use sender::{Handshake, Sender};
pub use server::Server;
pub use tools::{kafka_python_sender, lea, tshark_fields, tshark_ok};
pub use workdir::{Workdir, assert_same, manifest, testdata, wait_closed};

/// How long a test waits for something that takes milliseconds on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// True where the long form of each scenario is asked for (`scripts/test.sh --long`).
pub fn long() -> bool {
    std::env::var_os("LEA_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Waits until `condition` holds; past the deadline the test fails and says what it waited for.
#[track_caller]
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(deadline, what, || condition().then_some(()));
}

/// Waits until `look` finds something; past the deadline the test fails and says what it waited for.
#[track_caller]
pub fn wait_for<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}
