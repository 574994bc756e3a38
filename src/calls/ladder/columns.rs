//! Columns of a ladder: which endpoint is in which column.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Serialize;

use super::{Arrow, LadderOptions};
use crate::calls::endpoint::Endpoint;
use crate::calls::view::{CallMessage, MediaStream, Side};

/// Columns of a ladder. A call has a handful of endpoints; an attacker can send each message from another one. Endpoints
/// over the limit share the last column.
pub(crate) const COLUMNS_MAX: usize = 64;

/// Name of the column of the endpoints over [`COLUMNS_MAX`].
const OTHERS: &str = "others";

/// Column of a ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Column {
    /// Name that the user gave, or the address.
    pub name: String,
    /// True for a host that takes part with RTP and without SIP.
    pub is_media_only: bool,
}

/// Host with all its ports, or one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Host(IpAddr),
    Endpoint(Endpoint),
}

impl Address {
    fn contains(self, endpoint: Endpoint) -> bool {
        match self {
            Address::Host(ip) => ip == endpoint.ip,
            Address::Endpoint(other) => other == endpoint,
        }
    }
}

/// Parses `192.0.2.1`, `192.0.2.1:5060`, `2001:db8::1` or `[2001:db8::1]:5060`.
impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Address, std::net::AddrParseError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Address::Endpoint(Endpoint::new(address.ip(), address.port())));
        }
        text.parse().map(Address::Host)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ColumnKey {
    /// Index into [`LadderOptions::join`].
    Group(usize),
    Endpoint(Endpoint),
    MediaHost(IpAddr),
    Others,
}

/// Columns of the caller and of the callee, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sides {
    caller: Option<usize>,
    callee: Option<usize>,
}

impl Sides {
    fn column(self, side: Side) -> Option<usize> {
        match side {
            Side::Caller => self.caller,
            Side::Callee => self.callee,
        }
    }
}

/// Columns in the order of first appearance.
pub(super) struct Columns<'a> {
    options: &'a LadderOptions,
    columns: Vec<Column>,
    by_key: HashMap<ColumnKey, usize>,
    by_endpoint: HashMap<Endpoint, usize>,
    /// Columns of each host, the first one first. At most [`COLUMNS_MAX`] in all.
    by_host: HashMap<IpAddr, Vec<usize>>,
    omitted: u64,
}

impl<'a> Columns<'a> {
    pub(super) fn new(options: &'a LadderOptions) -> Columns<'a> {
        Columns {
            options,
            columns: Vec::new(),
            by_key: HashMap::new(),
            by_endpoint: HashMap::new(),
            by_host: HashMap::new(),
            omitted: 0,
        }
    }

    pub(super) fn into_columns(self) -> Vec<Column> {
        self.columns
    }

    /// Returns the number of endpoints without a column of their own.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted
    }

    pub(super) fn place_message(&mut self, source: Endpoint, destination: Endpoint) -> Arrow {
        Arrow { from: self.sip_column(source), to: self.sip_column(destination), source, destination }
    }

    fn sip_column(&mut self, endpoint: Endpoint) -> usize {
        if let Some(column) = self.by_endpoint.get(&endpoint) {
            return *column;
        }
        let key = self.group(endpoint).map_or(ColumnKey::Endpoint(endpoint), ColumnKey::Group);
        self.add(endpoint, key)
    }

    fn group(&self, endpoint: Endpoint) -> Option<usize> {
        self.options.join.iter().position(|group| group.iter().any(|address| address.contains(endpoint)))
    }

    /// Returns the column of a key, which gets one if there is room.
    fn add(&mut self, endpoint: Endpoint, key: ColumnKey) -> usize {
        let mut key = key;
        if !self.by_key.contains_key(&key) && self.columns.len() + 1 >= COLUMNS_MAX {
            self.omitted += 1;
            key = ColumnKey::Others;
        }
        let column = match self.by_key.get(&key) {
            Some(column) => *column,
            None => {
                let name = self.name(endpoint, key);
                let is_media_only = matches!(key, ColumnKey::MediaHost(_));
                self.columns.push(Column { name, is_media_only });
                self.by_key.insert(key, self.columns.len() - 1);
                self.columns.len() - 1
            }
        };
        self.by_endpoint.insert(endpoint, column);
        if key != ColumnKey::Others {
            let of_host = self.by_host.entry(endpoint.ip).or_default();
            if !of_host.contains(&column) {
                of_host.push(column);
            }
        }
        column
    }

    fn name(&self, endpoint: Endpoint, key: ColumnKey) -> String {
        if key == ColumnKey::Others {
            return OTHERS.to_owned();
        }
        let group = match key {
            ColumnKey::Group(group) => self.options.join.get(group),
            _ => None,
        };
        let is_named = |address: &Address| {
            address.contains(endpoint) || group.is_some_and(|group| group.contains(address))
        };
        match self.options.names.iter().find(|(address, _)| is_named(address)) {
            Some((_, name)) => name.clone(),
            None if matches!(key, ColumnKey::Endpoint(_)) => endpoint.to_string(),
            None => endpoint.ip.to_string(),
        }
    }

    /// Returns the columns of caller and callee: the source of the first INVITE, and the destination of the last INVITE
    /// before the first response that comes from the callee (more than 100).
    pub(super) fn find_sides(&self, messages: &[CallMessage]) -> Sides {
        let before_response =
            messages.iter().take_while(|message| message.code.is_none_or(|code| code <= 100));
        let mut invites =
            before_response.filter(|message| message.code.is_none() && message.method == "INVITE");
        let Some(first) = invites.next() else { return Sides::default() };
        let last = invites.last().unwrap_or(first);
        let column = |endpoint| self.by_endpoint.get(&endpoint).copied();
        Sides { caller: column(first.source), callee: column(last.destination) }
    }

    /// Returns the arrow of a stream. Ports of RTP get no columns: a host that has one for SIP is drawn there, another host
    /// gets one column for all its ports.
    pub(super) fn place_stream(&mut self, stream: &MediaStream, sides: Sides) -> Arrow {
        let other = |side| if side == Side::Caller { Side::Callee } else { Side::Caller };
        let sender = stream.side.and_then(|side| sides.column(side));
        let receiver = stream.side.and_then(|side| sides.column(other(side)));
        let from = self.media_column(stream.source, sender, receiver);
        let to = self.media_column(stream.destination, receiver, Some(from));
        Arrow { from, to, source: stream.source, destination: stream.destination }
    }

    /// Returns the column of an RTP endpoint. Of several columns of its host (all run on one machine), it is the one of its
    /// side, or the first one that is not `against`.
    fn media_column(&mut self, endpoint: Endpoint, side: Option<usize>, against: Option<usize>) -> usize {
        if let Some(column) = self.by_endpoint.get(&endpoint) {
            return *column;
        }
        if let Some(group) = self.group(endpoint) {
            return self.add(endpoint, ColumnKey::Group(group));
        }
        let of_host = self.by_host.get(&endpoint.ip).map_or(&[][..], Vec::as_slice);
        let of_side = side.filter(|column| of_host.contains(column));
        let apart = of_host.iter().copied().find(|column| Some(*column) != against);
        match of_side.or(apart).or(of_host.first().copied()) {
            Some(column) => column,
            None => self.add(endpoint, ColumnKey::MediaHost(endpoint.ip)),
        }
    }
}
