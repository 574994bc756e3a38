//! Link layers, and what lies between them and IP: VLAN tags, MPLS, PPPoE, PPP.

use super::bytes::{after, array_at, at_most, u8_at, u16_at, u32_at};
use super::ip::{looks_like_ipv4, peel_ip};
use super::{Depth, Layer, OtherReason};

// LINKTYPE_ values of https://www.tcpdump.org/linktypes.html.
const NULL: u32 = 0;
pub(super) const ETHERNET: u32 = 1;
const PPP: u32 = 9;
/// DLT_RAW of most systems, and of OpenBSD. Some writers store it instead of LINKTYPE_RAW.
const DLT_RAW: u32 = 12;
const DLT_RAW_OPENBSD: u32 = 14;
const PPP_HDLC: u32 = 50;
const PPP_ETHER: u32 = 51;
const RAW: u32 = 101;
const C_HDLC: u32 = 104;
const LOOP: u32 = 108;
const LINUX_SLL: u32 = 113;
const IPV4: u32 = 228;
const IPV6: u32 = 229;
const LINUX_SLL2: u32 = 276;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Outer tag of QinQ before IEEE 802.1ad.
const ETHERTYPE_OLD_QINQ: u16 = 0x9100;
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_MULTICAST: u16 = 0x8848;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
pub(super) const ETHERTYPE_PPP: u16 = 0x880b;
pub(super) const ETHERTYPE_ETHERNET: u16 = 0x6558;

/// Values below are lengths of an IEEE 802.3 frame.
const ETHERTYPE_MIN: u16 = 0x0600;
const ETHERNET_HEADER_BYTES: usize = 14;
/// Most labels of an MPLS stack. Real ones have up to 5.
const MPLS_LABELS_MAX: usize = 16;

pub(super) fn peel_link(link_type: u32, bytes: &[u8]) -> Layer<'_> {
    let depth = Depth(0);
    match link_type {
        ETHERNET => peel_ethernet(bytes, depth),
        RAW | DLT_RAW | DLT_RAW_OPENBSD | IPV4 | IPV6 => peel_ip(bytes, depth),
        LINUX_SLL => peel_ethertype(u16_at(bytes, 14)?, after(bytes, 16)?, depth),
        LINUX_SLL2 => peel_ethertype(u16_at(bytes, 0)?, after(bytes, 20)?, depth),
        NULL | LOOP => peel_loopback(bytes, depth),
        PPP | PPP_HDLC | C_HDLC => peel_hdlc(bytes, depth),
        PPP_ETHER => peel_pppoe(bytes, depth),
        _ => Err(OtherReason::LinkType),
    }
}

pub(super) fn peel_ethernet(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let ethertype = u16_at(bytes, 12)?;
    let payload = after(bytes, ETHERNET_HEADER_BYTES)?;
    if ethertype >= ETHERTYPE_MIN {
        return peel_ethertype(ethertype, payload, depth);
    }
    // IEEE 802.3 with an LLC and a SNAP header (RFC 1042).
    match array_at(payload, 0)? {
        [0xaa, 0xaa, 0x03, 0, 0, 0] => {
            let payload = at_most(payload, usize::from(ethertype));
            peel_ethertype(u16_at(payload, 6)?, after(payload, 8)?, depth)
        }
        _ => Err(OtherReason::NetworkProtocol),
    }
}

/// Peels what follows an EtherType, also that of GRE, Geneve and the cooked headers of Linux.
pub(super) fn peel_ethertype(ethertype: u16, bytes: &[u8], depth: Depth) -> Layer<'_> {
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => peel_ip(bytes, depth),
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN | ETHERTYPE_OLD_QINQ => peel_vlan(bytes, depth.deeper()?),
        ETHERTYPE_MPLS | ETHERTYPE_MPLS_MULTICAST => peel_mpls(bytes, depth.deeper()?),
        ETHERTYPE_PPPOE_SESSION => peel_pppoe(bytes, depth.deeper()?),
        ETHERTYPE_PPP => peel_hdlc(bytes, depth.deeper()?),
        ETHERTYPE_ETHERNET => peel_ethernet(bytes, depth.deeper()?),
        _ => Err(OtherReason::NetworkProtocol),
    }
}

/// Tag control information, then the EtherType of the payload, or the length of an IEEE 802.3 frame.
fn peel_vlan(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let ethertype = u16_at(bytes, 2)?;
    let payload = after(bytes, 4)?;
    match payload {
        [0xaa, 0xaa, 0x03, 0, 0, 0, high, low, rest @ ..] if ethertype < ETHERTYPE_MIN => {
            peel_ethertype(u16::from_be_bytes([*high, *low]), rest, depth)
        }
        _ => peel_ethertype(ethertype, payload, depth),
    }
}

/// Label stack (RFC 3032). The stack does not say what follows: the first nibble does, and it is ambiguous for Ethernet
/// without a control word.
pub(super) fn peel_mpls(bytes: &[u8], depth: Depth) -> Layer<'_> {
    const BOTTOM_OF_STACK: u32 = 0x100;
    let mut payload = bytes;
    for _ in 0..MPLS_LABELS_MAX {
        let label = u32_at(payload, 0)?;
        payload = after(payload, 4)?;
        if label & BOTTOM_OF_STACK != 0 {
            return peel_mpls_payload(payload, depth);
        }
    }
    Err(OtherReason::TooDeep)
}

fn peel_mpls_payload(bytes: &[u8], depth: Depth) -> Layer<'_> {
    /// Control word of a pseudowire (RFC 4448 section 4.6), whose first nibble is 0.
    const CONTROL_WORD_BYTES: usize = 4;
    match u8_at(bytes, 0)? >> 4 {
        4 if looks_like_ipv4(bytes) => peel_ip(bytes, depth),
        6 if !looks_like_ethernet(bytes) => peel_ip(bytes, depth),
        0 if looks_like_ethernet(after(bytes, CONTROL_WORD_BYTES)?) => {
            peel_ethernet(after(bytes, CONTROL_WORD_BYTES)?, depth.deeper()?)
        }
        _ if looks_like_ethernet(bytes) => peel_ethernet(bytes, depth.deeper()?),
        _ => Err(OtherReason::NetworkProtocol),
    }
}

/// Reports whether an EtherType is where an Ethernet header has one.
fn looks_like_ethernet(bytes: &[u8]) -> bool {
    matches!(
        u16_at(bytes, 12),
        Ok(ETHERTYPE_IPV4
            | ETHERTYPE_IPV6
            | ETHERTYPE_ARP
            | ETHERTYPE_VLAN
            | ETHERTYPE_SERVICE_VLAN
            | ETHERTYPE_OLD_QINQ
            | ETHERTYPE_MPLS
            | ETHERTYPE_PPPOE_SESSION)
    )
}

/// PPPoE header of a session (RFC 2516 section 4): version and type 1, code 0, session, length.
fn peel_pppoe(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let [version_and_type, code] = array_at(bytes, 0)?;
    if version_and_type != 0x11 {
        return Err(OtherReason::Malformed);
    }
    if code != 0 {
        return Err(OtherReason::NetworkProtocol);
    }
    let payload_bytes = usize::from(u16_at(bytes, 4)?);
    peel_ppp(at_most(after(bytes, 6)?, payload_bytes), depth)
}

/// PPP with or without the address and control fields of HDLC (RFC 1662), or Cisco HDLC.
pub(super) fn peel_hdlc(bytes: &[u8], depth: Depth) -> Layer<'_> {
    match bytes {
        [0xff, 0x03, rest @ ..] => peel_ppp(rest, depth),
        // Unicast or multicast, control, EtherType.
        [0x0f | 0x8f, _, high, low, rest @ ..] => {
            peel_ethertype(u16::from_be_bytes([*high, *low]), rest, depth)
        }
        _ => peel_ppp(bytes, depth),
    }
}

/// PPP protocol field, of one byte if it was compressed (RFC 1661 section 6.5), and payload.
fn peel_ppp(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let first = u8_at(bytes, 0)?;
    let (protocol, payload) = if first & 1 == 1 {
        (u16::from(first), after(bytes, 1)?)
    } else {
        (u16_at(bytes, 0)?, after(bytes, 2)?)
    };
    match protocol {
        0x0021 | 0x0057 => peel_ip(payload, depth),
        0x0281 | 0x0283 => peel_mpls(payload, depth.deeper()?),
        _ => Err(OtherReason::NetworkProtocol),
    }
}

/// Address family in the byte order of the capturing machine (NULL) or big-endian (LOOP). The numbers of IPv6 are those of
/// Linux, NetBSD, FreeBSD and Darwin.
fn peel_loopback(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let family = u32_at(bytes, 0)?;
    match family.min(family.swap_bytes()) {
        2 | 10 | 24 | 28 | 30 => peel_ip(after(bytes, 4)?, depth),
        _ => Err(OtherReason::NetworkProtocol),
    }
}
