//! Messages and a capture of them, written as short as possible.

use std::net::Ipv4Addr;

use super::super::*;
use crate::calls::endpoint::Endpoint;
use crate::calls::sip::Message;
use crate::calls::view::{Call, SipTransport};

pub(super) const SECOND: i64 = 1_000_000_000;
pub(super) const MILLISECOND: i64 = 1_000_000;

/// Hosts: caller, proxy, callees.
pub(super) const A: u8 = 1;
pub(super) const P: u8 = 10;
pub(super) const B: u8 = 2;
pub(super) const C: u8 = 3;

pub(super) const SDP: &str = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 6000 RTP/AVP 8\r\n";
pub(super) const SDP_B: &str = "v=0\r\nc=IN IP4 192.0.2.2\r\nm=audio 7000 RTP/AVP 8\r\n";
pub(super) const SDP_HOLD: &str = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 6000 RTP/AVP 8\r\na=sendonly\r\n";
pub(super) const SDP_G722: &str = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 6000 RTP/AVP 9\r\n";

/// Message of the call `call-1` from tag `a`.
#[derive(Clone)]
pub(super) struct Text {
    start: String,
    pub method: String,
    pub cseq: u32,
    pub branch: String,
    pub call_id: String,
    pub from: String,
    pub to: String,
    headers: String,
    body: String,
}

/// Request of the caller without To tag. The branch is made of method and CSeq.
pub(super) fn request(method: &str, cseq: u32) -> Text {
    Text {
        start: format!("{method} sip:+447700900456@example.com SIP/2.0"),
        method: method.to_string(),
        cseq,
        branch: format!("z9hG4bK-{method}-{cseq}"),
        call_id: "call-1".to_string(),
        from: "a".to_string(),
        to: String::new(),
        headers: String::new(),
        body: String::new(),
    }
}

/// Response to `request` with the To tag `b`.
pub(super) fn response(code: u16, reason: &str, request: &Text) -> Text {
    let to = if request.to.is_empty() && code > 100 { "b" } else { &request.to };
    let start = format!("SIP/2.0 {code} {reason}");
    Text { start, to: to.to_string(), headers: String::new(), body: String::new(), ..request.clone() }
}

impl Text {
    pub(super) fn to(mut self, tag: &str) -> Text {
        self.to = tag.to_string();
        self
    }

    pub(super) fn from(mut self, tag: &str) -> Text {
        self.from = tag.to_string();
        self
    }

    pub(super) fn branch(mut self, branch: &str) -> Text {
        self.branch = branch.to_string();
        self
    }

    pub(super) fn call_id(mut self, call_id: &str) -> Text {
        self.call_id = call_id.to_string();
        self
    }

    pub(super) fn header(mut self, line: &str) -> Text {
        self.headers += &format!("{line}\r\n");
        self
    }

    pub(super) fn body(self, content_type: &str, body: &str) -> Text {
        let mut text = self.header(&format!("Content-Type: {content_type}"));
        text.body = body.to_string();
        text
    }

    pub(super) fn sdp(self, sdp: &str) -> Text {
        self.body("application/sdp", sdp)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let user = |tag: &str| if tag == "a" { "+447700900123" } else { "+447700900456" };
        let address = |tag: &str| {
            let tag_text = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
            format!("<sip:{}@example.com>{tag_text}", user(tag))
        };
        format!(
            "{}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n{}\r\n{}",
            self.start,
            self.branch,
            address(&self.from),
            address(&self.to),
            self.call_id,
            self.cseq,
            self.method,
            self.headers,
            self.body
        )
        .into_bytes()
    }
}

/// Capture that grows by a message every 100 ms.
pub(super) struct Kit {
    pub calls: Calls,
    pub time_ns: i64,
    pub ip_id: u16,
    pub vlan: u16,
}

impl Kit {
    pub(super) fn new() -> Kit {
        Kit { calls: Calls::default(), time_ns: 1_000 * SECOND, ip_id: 0, vlan: 0 }
    }

    /// Sends a message 100 ms after the last one.
    #[track_caller]
    pub(super) fn send(&mut self, source: u8, destination: u8, text: &Text) -> Event {
        self.after(100 * MILLISECOND, source, destination, text)
    }

    #[track_caller]
    pub(super) fn after(&mut self, wait_ns: i64, source: u8, destination: u8, text: &Text) -> Event {
        self.ip_id = self.ip_id.checked_add(1).unwrap_or(1);
        self.time_ns += wait_ns;
        self.add(source, destination, text)
    }

    /// Adds a packet with the time and IP identification of the last one.
    #[track_caller]
    pub(super) fn add(&mut self, source: u8, destination: u8, text: &Text) -> Event {
        let bytes = text.bytes();
        let message = Message::parse(&bytes).unwrap();
        let endpoint = |host| Endpoint::new(Ipv4Addr::new(192, 0, 2, host), 5060);
        let packet = PacketMeta {
            first_offset: 24,
            place: PacketPlace { offset: 24, bytes: 500, time_ns: self.time_ns },
            flow: Flow { source: endpoint(source), destination: endpoint(destination) },
            ip_id: self.ip_id,
            vlan: self.vlan,
            transport: SipTransport::Udp,
        };
        self.calls.add(packet, &message, &bytes)
    }

    /// INVITE, 180, 200, ACK.
    #[track_caller]
    pub(super) fn answer_call(&mut self) {
        let invite = request("INVITE", 1).sdp(SDP);
        self.send(A, B, &invite);
        self.send(B, A, &response(180, "Ringing", &invite));
        self.send(B, A, &response(200, "OK", &invite).sdp(SDP_B));
        self.send(A, B, &request("ACK", 1).to("b"));
    }

    #[track_caller]
    pub(super) fn call(&self) -> &CallRecord {
        assert_eq!(self.calls.len(), 1);
        self.calls.iter().next().unwrap()
    }

    #[track_caller]
    pub(super) fn view(&self) -> Call {
        to_view(self.call(), "a.pcap", "stream")
    }

    /// The only call, after an hour without messages.
    #[track_caller]
    pub(super) fn finish(&mut self) -> CallRecord {
        let mut calls = self.calls.take_finished(self.time_ns + 3_600 * SECOND, 1_800 * SECOND);
        assert_eq!(calls.len(), 1);
        calls.remove(0)
    }
}
