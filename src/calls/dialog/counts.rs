//! Numbers of messages per method and status code, as in `tshark -z sip,stat`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::sip::{Message, StartLine};

/// Most method names that are counted apart. The registry has 14; attackers invent more, which count as `OTHER`.
const METHODS_MAX: usize = 64;

/// Longest method name in bytes that is counted apart.
const METHOD_BYTES_MAX: usize = 32;

/// Numbers of messages, with retransmissions and copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MessageCounts {
    /// Requests by method.
    pub requests: BTreeMap<String, u64>,
    /// Responses by status code.
    pub responses: BTreeMap<u16, u64>,
}

impl MessageCounts {
    pub(super) fn add(&mut self, message: &Message<'_>) {
        match message.start {
            StartLine::Request { method, .. } => self.add_request(method),
            StartLine::Response { code, .. } => increment(self.responses.entry(code).or_default()),
        }
    }

    fn add_request(&mut self, method: &[u8]) {
        let name =
            str::from_utf8(method).ok().filter(|name| name.len() <= METHOD_BYTES_MAX).unwrap_or("OTHER");
        if let Some(count) = self.requests.get_mut(name) {
            increment(count);
            return;
        }
        let name = if self.requests.len() < METHODS_MAX { name } else { "OTHER" };
        increment(self.requests.entry(name.to_string()).or_default());
    }

    /// All messages.
    pub(crate) fn total(&self) -> u64 {
        self.requests.values().chain(self.responses.values()).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

fn increment(count: &mut u64) {
    *count = count.saturating_add(1);
}
