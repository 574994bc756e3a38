//! Limits per peer of a listener: connections, new names and bytes per second. One peer must not take what all share.
//!
//! A peer is an IPv4 address, or an IPv6 network of 64 bits, because its owner has all addresses of it. A peer without a
//! connection is forgotten after [`NAME_WINDOW`], so the table has little more entries than there are connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time in which new names are counted.
const NAME_WINDOW: Duration = Duration::from_secs(3600);

/// Peers that are remembered without a connection. With more, those that were forgotten soonest are forgotten first.
const IDLE_PEERS_MAX: usize = 65_536;

/// Connections of a listener that one peer may use up.
const SMALL_LISTENER: usize = 16;

/// Limits on one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerLimits {
    /// Open connections.
    pub connections_max: usize,
    /// New names per hour.
    pub names_max: u64,
    /// Bytes per second over all connections. `None`: no limit.
    pub bytes_per_second: Option<u64>,
    /// Memory that its connections hold together.
    pub memory_bytes_max: usize,
}

impl PeerLimits {
    /// Returns limits on connections only: a part of those of the listener, so that others always find a place.
    pub(crate) fn of_connections(connections_max: usize) -> PeerLimits {
        PeerLimits {
            connections_max: (connections_max / 2).max(SMALL_LISTENER.min(connections_max)),
            names_max: u64::MAX,
            bytes_per_second: None,
            memory_bytes_max: usize::MAX,
        }
    }
}

/// The peers of a listener.
#[derive(Debug)]
pub(crate) struct PeerTable {
    limits: PeerLimits,
    peers: Mutex<HashMap<IpAddr, Peer>>,
}

#[derive(Debug)]
struct Peer {
    connections: usize,
    memory_bytes: usize,
    names: u64,
    names_since: Instant,
    /// Time at which the bytes so far are within the rate.
    paid_until: Instant,
}

/// A connection of a peer. Its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct PeerPermit {
    table: Arc<PeerTable>,
    key: IpAddr,
}

impl PeerTable {
    pub(crate) fn new(limits: PeerLimits) -> Arc<PeerTable> {
        Arc::new(PeerTable { limits, peers: Mutex::default() })
    }

    /// Returns `None` if the peer has as many connections as it may have.
    pub(crate) fn connect(self: &Arc<PeerTable>, address: IpAddr, now: Instant) -> Option<PeerPermit> {
        let key = peer_key(address);
        let mut peers = self.lock();
        forget_idle(&mut peers, now);
        let peer = peers.entry(key).or_insert_with(|| Peer::new(now));
        if peer.connections >= self.limits.connections_max {
            return None;
        }
        peer.connections += 1;
        Some(PeerPermit { table: Arc::clone(self), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn new(now: Instant) -> Peer {
        Peer { connections: 0, memory_bytes: 0, names: 0, names_since: now, paid_until: now }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.connections == 0 && now.duration_since(self.names_since) >= NAME_WINDOW
    }
}

/// Removes peers that need not be remembered, when there are many.
fn forget_idle(peers: &mut HashMap<IpAddr, Peer>, now: Instant) {
    if peers.len() < IDLE_PEERS_MAX {
        return;
    }
    peers.retain(|_, peer| !peer.is_idle(now));
    if peers.len() >= IDLE_PEERS_MAX {
        peers.retain(|_, peer| peer.connections > 0);
    }
}

impl PeerPermit {
    /// Counts a new name. Returns false if the peer has used too many.
    pub(crate) fn take_name(&self, now: Instant) -> bool {
        let mut peers = self.table.lock();
        let Some(peer) = peers.get_mut(&self.key) else { return true };
        if now.duration_since(peer.names_since) >= NAME_WINDOW {
            (peer.names, peer.names_since) = (0, now);
        }
        peer.names += 1;
        peer.names <= self.table.limits.names_max
    }

    /// Changes the memory of a connection from `before` to `after` bytes. Returns false and changes nothing if its peer would
    /// hold too much.
    pub(crate) fn resize_memory(&self, before: usize, after: usize) -> bool {
        let mut peers = self.table.lock();
        let Some(peer) = peers.get_mut(&self.key) else { return true };
        let bytes = peer.memory_bytes.saturating_sub(before).saturating_add(after);
        if after > before && bytes > self.table.limits.memory_bytes_max {
            return false;
        }
        peer.memory_bytes = bytes;
        true
    }

    /// Counts received bytes. Returns how long the connection has to wait before it receives more.
    pub(crate) fn take_bytes(&self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.table.limits.bytes_per_second else { return Duration::ZERO };
        let mut peers = self.table.lock();
        let Some(peer) = peers.get_mut(&self.key) else { return Duration::ZERO };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        // Silence earns nothing: at most the bytes of one read arrive at once.
        peer.paid_until = peer.paid_until.max(now) + cost;
        peer.paid_until.duration_since(now)
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        let mut peers = self.table.lock();
        let Some(peer) = peers.get_mut(&self.key) else { return };
        peer.connections = peer.connections.saturating_sub(1);
        if peer.connections == 0 && peer.names == 0 {
            peers.remove(&self.key);
        }
    }
}

/// Returns what counts as one peer: the address, or the /64 network of an IPv6 address.
pub(crate) fn peer_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(connections_max: usize, names_max: u64, bytes_per_second: Option<u64>) -> Arc<PeerTable> {
        PeerTable::new(PeerLimits { connections_max, names_max, bytes_per_second, memory_bytes_max: 100 })
    }

    fn connect(table: &Arc<PeerTable>, address: &str) -> Option<PeerPermit> {
        table.connect(address.parse().unwrap(), Instant::now())
    }

    #[test]
    fn each_peer_has_its_own_connections() {
        let table = table(2, 10, None);
        let first = connect(&table, "192.0.2.1");
        let _second = connect(&table, "::ffff:192.0.2.1").expect("the same peer, and room for it");
        assert!(connect(&table, "192.0.2.1").is_none());
        assert!(connect(&table, "192.0.2.2").is_some(), "another peer");
        drop(first);
        assert!(connect(&table, "192.0.2.1").is_some());
    }

    #[test]
    fn a_network_of_64_bits_is_one_peer() {
        let table = table(1, 10, None);
        let _first = connect(&table, "2001:db8:0:1::1").unwrap();
        assert!(connect(&table, "2001:db8:0:1:ffff::9").is_none());
        assert!(connect(&table, "2001:db8:0:2::1").is_some());
    }

    #[test]
    fn new_names_are_counted_per_hour() {
        let table = table(10, 3, None);
        let now = Instant::now();
        for _ in 0..3 {
            assert!(connect(&table, "192.0.2.1").unwrap().take_name(now));
        }
        let permit = connect(&table, "192.0.2.1").unwrap();
        assert!(!permit.take_name(now), "they are remembered without a connection");
        assert!(connect(&table, "192.0.2.2").unwrap().take_name(now));
        assert!(permit.take_name(Instant::now() + NAME_WINDOW));
    }

    #[test]
    fn the_connections_of_a_peer_share_its_rate() {
        let table = table(10, 10, Some(1000));
        let (first, second) = (connect(&table, "192.0.2.1").unwrap(), connect(&table, "192.0.2.1").unwrap());
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(first.take_bytes(500, now), Duration::from_millis(500));
        assert_eq!(second.take_bytes(500, now), Duration::from_secs(1));
        // After a pause nothing is owed and nothing is saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!(first.take_bytes(100, later), Duration::from_millis(100));
        let free = PeerTable::new(PeerLimits::of_connections(1));
        assert_eq!(connect(&free, "192.0.2.1").unwrap().take_bytes(u64::MAX, now), Duration::ZERO);
    }

    #[test]
    fn t3_the_connections_of_a_peer_share_its_memory() {
        let table = table(10, 10, None);
        let (first, second) = (connect(&table, "192.0.2.1").unwrap(), connect(&table, "192.0.2.1").unwrap());
        assert!(first.resize_memory(0, 60) && second.resize_memory(0, 40));
        assert!(!second.resize_memory(40, 41), "the peer has no more");
        let other = connect(&table, "192.0.2.2").unwrap();
        assert!(other.resize_memory(0, 100));
        assert!(first.resize_memory(60, 0) && second.resize_memory(40, 100));
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let table = table(10, 10, None);
        let now = Instant::now();
        for number in 0..2 * IDLE_PEERS_MAX as u32 {
            let permit = table.connect(IpAddr::from(number.to_be_bytes()), now).unwrap();
            assert!(permit.take_name(now));
        }
        assert!(table.lock().len() <= IDLE_PEERS_MAX);
    }
}
