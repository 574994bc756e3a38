//! Tunnels over IP (GRE, ERSPAN, PPTP) and over UDP (VXLAN, GTP-U, Geneve).

use super::bytes::{after, array_at, at_most, u8_at, u16_at};
use super::ip::peel_ip;
use super::link::{
    ETHERTYPE_ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PPP, peel_ethernet, peel_ethertype,
    peel_hdlc,
};
use super::{Depth, Layer, OtherReason};

const PORT_VXLAN: u16 = 4789;
/// Port of Linux's VXLAN before IANA assigned one, and still its default.
const PORT_VXLAN_LINUX: u16 = 8472;
const PORT_GTP_USER: u16 = 2152;
const PORT_GENEVE: u16 = 6081;

/// ERSPAN type I (no header, no sequence number) and type II.
const GRE_ERSPAN: u16 = 0x88be;
const GRE_ERSPAN_3: u16 = 0x22eb;

/// Most extension headers of a GTP-U packet. 3GPP TS 29.281 section 5.2 defines fewer than 10 types.
const GTP_EXTENSIONS_MAX: usize = 16;

/// GRE (RFC 2784, RFC 2890), and its version 1 for PPTP (RFC 2637 section 4.1).
pub(super) fn peel_gre(bytes: &[u8], depth: Depth) -> Layer<'_> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGMENT: u16 = 0x0080;
    let flags = u16_at(bytes, 0)?;
    let protocol = u16_at(bytes, 2)?;
    let optional_bytes = |flag: u16| if flags & flag != 0 { 4 } else { 0 };
    let header_bytes = 4 + optional_bytes(CHECKSUM) + optional_bytes(KEY) + optional_bytes(SEQUENCE);
    match flags & 0x0007 {
        0 if flags & ROUTING != 0 => Err(OtherReason::Malformed),
        0 => {
            let payload = after(bytes, header_bytes)?;
            match protocol {
                GRE_ERSPAN if flags & SEQUENCE != 0 => peel_erspan(payload, depth),
                GRE_ERSPAN => peel_ethernet(payload, depth),
                GRE_ERSPAN_3 => peel_erspan(payload, depth),
                // Not one encapsulation more for the frame or packet of the tunnel itself.
                ETHERTYPE_ETHERNET => peel_ethernet(payload, depth),
                ETHERTYPE_PPP => peel_hdlc(payload, depth),
                _ => peel_ethertype(protocol, payload, depth),
            }
        }
        1 if protocol == ETHERTYPE_PPP && flags & KEY != 0 => {
            let payload_bytes = usize::from(u16_at(bytes, 4)?);
            let payload = after(bytes, header_bytes + optional_bytes(ACKNOWLEDGMENT))?;
            peel_hdlc(at_most(payload, payload_bytes), depth)
        }
        _ => Err(OtherReason::Malformed),
    }
}

/// ERSPAN header of type II (8 bytes, version 1) or III (12 bytes, version 2, and 8 more if the O bit is set), as in
/// draft-foschiano-erspan-03 section 4.
fn peel_erspan(bytes: &[u8], depth: Depth) -> Layer<'_> {
    match u8_at(bytes, 0)? >> 4 {
        1 => peel_ethernet(after(bytes, 8)?, depth),
        2 => {
            let [frame_type, last] = array_at(bytes, 10)?;
            let payload = after(bytes, if last & 1 != 0 { 20 } else { 12 })?;
            match frame_type >> 2 & 0x1f {
                0 => peel_ethernet(payload, depth),
                2 => peel_ip(payload, depth),
                _ => Err(OtherReason::NetworkProtocol),
            }
        }
        _ => Err(OtherReason::Malformed),
    }
}

/// Reports whether a datagram to this UDP port may be a tunnel.
#[inline]
pub(super) fn is_tunnel_port(port: u16) -> bool {
    matches!(port, PORT_VXLAN | PORT_VXLAN_LINUX | PORT_GTP_USER | PORT_GENEVE)
}

/// Peels a tunnel over UDP. Returns `None` if the header is not that of the tunnel, or no IP packet is inside: ports are
/// only a hint, and the datagram may as well be RTP.
pub(super) fn peel_udp_tunnel(port: u16, payload: &[u8], depth: Depth) -> Option<Layer<'_>> {
    let inner = depth.deeper().and_then(|depth| match port {
        PORT_VXLAN | PORT_VXLAN_LINUX => peel_vxlan(payload, depth),
        PORT_GTP_USER => peel_gtp_user(payload, depth),
        _ => peel_geneve(payload, depth),
    });
    match inner {
        Ok(peeled) => Some(Ok(peeled)),
        Err(reason @ (OtherReason::TransportProtocol | OtherReason::TooDeep)) => Some(Err(reason)),
        Err(_) => None,
    }
}

/// VXLAN (RFC 7348 section 5). The flag of a group policy (draft-smith-vxlan-group-policy) is accepted too.
fn peel_vxlan(bytes: &[u8], depth: Depth) -> Layer<'_> {
    match array_at(bytes, 0)? {
        [0x08 | 0x88, _, _, _, _, _, _, 0] => peel_ethernet(after(bytes, 8)?, depth),
        _ => Err(OtherReason::Malformed),
    }
}

/// GTP-U (3GPP TS 29.281 section 5.1): version 1, a G-PDU, extension headers.
fn peel_gtp_user(bytes: &[u8], depth: Depth) -> Layer<'_> {
    const G_PDU: u8 = 0xff;
    const EXTENSION: u8 = 0x04;
    let [flags, message_type] = array_at(bytes, 0)?;
    // Version 1 and protocol type GTP; the next bit is spare.
    if flags & 0xf0 != 0x30 || message_type != G_PDU {
        return Err(OtherReason::Malformed);
    }
    let length = usize::from(u16_at(bytes, 2)?);
    let rest = at_most(after(bytes, 8)?, length);
    if flags & 0x07 == 0 {
        return peel_ip(rest, depth);
    }
    let mut next_type = if flags & EXTENSION != 0 { u8_at(rest, 3)? } else { 0 };
    let mut payload = after(rest, 4)?;
    for _ in 0..GTP_EXTENSIONS_MAX {
        if next_type == 0 {
            return peel_ip(payload, depth);
        }
        // In units of 4 bytes. The last byte is the type of the next one.
        let extension_bytes = usize::from(u8_at(payload, 0)?) * 4;
        if extension_bytes == 0 {
            return Err(OtherReason::Malformed);
        }
        next_type = u8_at(payload, extension_bytes - 1)?;
        payload = after(payload, extension_bytes)?;
    }
    Err(OtherReason::Malformed)
}

/// Geneve (RFC 8926 section 3.4).
fn peel_geneve(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let [version_and_length, _, t0, t1, _, _, _, reserved] = array_at(bytes, 0)?;
    if version_and_length >> 6 != 0 || reserved != 0 {
        return Err(OtherReason::Malformed);
    }
    let payload = after(bytes, 8 + usize::from(version_and_length & 0x3f) * 4)?;
    match u16::from_be_bytes([t0, t1]) {
        ETHERTYPE_ETHERNET => peel_ethernet(payload, depth),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => peel_ip(payload, depth),
        _ => Err(OtherReason::Malformed),
    }
}
