use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

fn parsed(text: &str) -> Sdp {
    parse(text.as_bytes()).unwrap()
}

fn endpoint(last: u8, port: u16) -> Endpoint {
    Endpoint::new(Ipv4Addr::new(192, 0, 2, last), port)
}

/// Example of RFC 8866 section 5, with its email line.
const RFC_8866: &str = "v=0\r
o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1\r
s=Call to John Smith\r
i=SDP Offer #1\r
u=http://www.jdoe.example.com/home.html\r
e=Jane Doe <jane@jdoe.example.com>\r
p=+1 617 555-6011\r
c=IN IP4 198.51.100.1\r
t=0 0\r
m=audio 49170 RTP/AVP 0\r
m=audio 49180 RTP/AVP 0\r
m=video 51372 RTP/AVP 99\r
c=IN IP6 2001:db8::2\r
a=rtpmap:99 h263-1998/90000\r
";

#[test]
fn the_example_of_rfc_8866_is_read() {
    let sdp = parsed(RFC_8866);
    let session: IpAddr = Ipv4Addr::new(198, 51, 100, 1).into();
    assert_eq!(sdp.connection, Some(session));
    let ports: Vec<u16> = sdp.media.iter().map(|media| media.port).collect();
    assert_eq!(ports, [49_170, 49_180, 51_372]);
    let [first, _, video] = &sdp.media[..] else { panic!() };
    assert_eq!((first.kind, first.connection, first.port_count), (MediaKind::Audio, Some(session), 1));
    let pcmu = &first.formats[0];
    assert_eq!((pcmu.payload_type, &*pcmu.name, pcmu.clock_hz, pcmu.channels), (0, "PCMU", 8_000, 1));
    assert_eq!((video.kind, video.connection), (MediaKind::Video, Some("2001:db8::2".parse().unwrap())));
    assert_eq!((&*video.formats[0].name, video.formats[0].clock_hz), ("h263-1998", 90_000));
}

#[test]
fn attributes_of_a_media_line_are_read() {
    let sdp = parsed(
        "v=0\nc=IN IP4 192.0.2.1\nm=audio 6000/2 RTP/AVP 8 111 101 8 200\na=rtpmap:111 opus/48000/2\na=fmtp:111 useinbandfec=1\n\
         a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\na=ptime:20\na=sendonly\na=rtcp:6007 IN IP4 192.0.2.9\n\
         a=ssrc:2345 cname:x\na=ssrc:2345 msid:y\na=ssrc:9\n",
    );
    let media = &sdp.media[0];
    assert_eq!(media.formats.len(), 3);
    let opus = media.format(111).unwrap();
    assert_eq!((&*opus.name, opus.clock_hz, opus.channels), ("opus", 48_000, 2));
    assert_eq!(opus.parameters.as_deref(), Some("useinbandfec=1"));
    assert_eq!(&*media.format(101).unwrap().name, "telephone-event");
    assert_eq!((media.ptime_ms, media.direction), (Some(20), Direction::SendOnly));
    assert_eq!(media.endpoints().collect::<Vec<_>>(), [endpoint(1, 6000), endpoint(1, 6002)]);
    assert_eq!(media.rtcp_endpoint(), Some(endpoint(9, 6007)));
    assert_eq!(media.ssrcs, [2345, 9]);
    assert!(media.is_hold() && media.is_rtp() && !media.is_encrypted() && !media.is_rtcp_mux);
}

#[test]
fn session_attributes_hold_for_media_lines_that_have_none() {
    let sdp = parsed(
        "v=0\na=inactive\na=fingerprint:sha-256 AB\nm=audio 1 UDP/TLS/RTP/SAVPF 0\na=sendrecv\nm=audio 2 RTP/AVP 0",
    );
    let [first, second] = &sdp.media[..] else { panic!() };
    assert_eq!((first.direction, first.encryption), (Direction::SendReceive, Encryption::Dtls));
    assert_eq!((second.direction, second.encryption), (Direction::Inactive, Encryption::Dtls));
    assert!(second.is_hold() && sdp.has_encryption());
}

#[test]
fn encryption_is_told() {
    let encryption = |lines: &str| parsed(&format!("v=0\n{lines}")).media[0].encryption;
    assert_eq!(encryption("m=audio 1 RTP/AVP 0"), Encryption::None);
    assert_eq!(encryption("m=audio 1 RTP/SAVP 0"), Encryption::Unknown);
    assert_eq!(
        encryption("m=audio 1 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"),
        Encryption::Sdes
    );
    assert_eq!(encryption("m=audio 1 RTP/AVP 0\na=fingerprint:sha-1 x\na=crypto:1 y"), Encryption::Dtls);
}

#[test]
fn hold_of_rfc_2543_and_refused_streams_are_told() {
    let sdp =
        parsed("v=0\nc=IN IP4 0.0.0.0\nm=audio 6000 RTP/AVP 0\nm=video 0 RTP/AVP 31\nc=IN IP4 192.0.2.1\n");
    let [held, refused] = &sdp.media[..] else { panic!() };
    assert!(held.is_hold() && !held.is_refused());
    assert!(refused.is_refused() && !refused.is_hold());
    assert_eq!((held.endpoints().count(), held.rtcp_endpoint()), (0, None));
    assert_eq!((refused.endpoints().count(), refused.rtcp_endpoint()), (0, None));
}

#[test]
fn candidates_are_endpoints_of_media() {
    // Example of RFC 8839 section 5.1 without its last part.
    let sdp = parsed(
        "v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 0.0.0.0\na=rtcp-mux\n\
         a=candidate:1 1 UDP 2130706431 2001:db8::1 8998 typ host\n\
         a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.1 rport 8998\n\
         a=candidate:3 2 UDP 1694498815 192.0.2.3 45665 typ srflx\n\
         a=candidate:4 1 TCP 1694498815 192.0.2.3 9 typ host tcptype active\n\
         a=candidate:5 1 UDP 1 host.local 45664 typ host\n\
         a=candidate:2 1 udp 1694498815 192.0.2.3 45664 typ srflx\n",
    );
    let host = Endpoint::new("2001:db8::1".parse::<Ipv6Addr>().unwrap(), 8998);
    assert_eq!(sdp.media[0].endpoints().collect::<Vec<_>>(), [host, endpoint(3, 45_664)]);
    assert_eq!(sdp.media[0].rtcp_endpoint(), None);
}

#[test]
fn other_media_are_named() {
    let sdp = parsed(
        "m=image 4000 udptl t38\nm=message 1 TCP/MSRP *\nm=application 1 UDP/BFCP *\nm=text 1 RTP/AVP 98\nm=\nx\n=",
    );
    let kinds: Vec<MediaKind> = sdp.media.iter().map(|media| media.kind).collect();
    use MediaKind::{Application, Image, Message, Other};
    assert_eq!(kinds, [Image, Message, Application, Other, Other]);
    assert!(sdp.media[0].formats.is_empty() && !sdp.media[0].is_rtp());
    assert_eq!((&*sdp.media[3].formats[0].name, sdp.media[3].formats[0].clock_hz), ("", 0));
}

#[test]
fn multicast_and_host_names_are_tolerated() {
    assert_eq!(
        parsed("v=0\nc=IN IP4 233.252.0.1/127").connection,
        Some(Ipv4Addr::new(233, 252, 0, 1).into())
    );
    assert_eq!(parsed("v=0\nc=IN IP4 host.example.com\nm=audio 1 RTP/AVP 0").media[0].connection, None);
    assert_eq!(parse(b""), Err(SdpError::NotSdp));
    assert_eq!(parse(b"<xml/>"), Err(SdpError::NotSdp));
}

#[test]
fn static_payload_types_are_those_of_rfc_3551() {
    assert_eq!(static_format(8), Some(("PCMA", 8_000, 1)));
    assert_eq!(static_format(9), Some(("G722", 8_000, 1)));
    assert_eq!(static_format(10), Some(("L16", 44_100, 2)));
    assert_eq!(static_format(34), Some(("H263", 90_000, 1)));
    // Reserved, unassigned, kept free for RTCP, dynamic.
    for payload_type in [1, 2, 19, 20, 23, 24, 27, 29, 30, 35, 72, 96, 127] {
        assert_eq!(static_format(payload_type), None);
    }
    assert_eq!((0..=127).filter(|&payload_type| static_format(payload_type).is_some()).count(), 24);
}

#[test]
fn what_is_over_a_limit_is_counted() {
    let repeat = |head: &str, line: &dyn Fn(usize) -> String, count: usize| {
        parsed(&format!("v=0\n{head}{}", (0..count).map(line).collect::<String>()))
    };
    let media_line = |_: usize| "m=audio 1 RTP/AVP 0\n".to_string();
    let sdp = repeat("", &media_line, MEDIA_MAX);
    assert_eq!((sdp.media.len(), sdp.media_omitted), (MEDIA_MAX, 0));
    let sdp = repeat("", &media_line, MEDIA_MAX + 1);
    assert_eq!((sdp.media.len(), sdp.media_omitted), (MEDIA_MAX, 1));
    let payload_type = |index: usize| format!("{index} ");
    let sdp = repeat("m=audio 1 RTP/AVP ", &payload_type, FORMATS_MAX);
    assert_eq!((sdp.media[0].formats.len(), sdp.formats_omitted), (FORMATS_MAX, 0));
    let sdp = repeat("m=audio 1 RTP/AVP ", &payload_type, 128);
    assert_eq!((sdp.media[0].formats.len(), sdp.formats_omitted), (FORMATS_MAX, 128 - 64));
    let head = "m=audio 1 RTP/AVP 0\n";
    let candidate = |index: usize| format!("a=candidate:1 1 UDP 1 192.0.2.1 {index} typ host\n");
    let sdp = repeat(head, &candidate, CANDIDATES_MAX);
    assert_eq!((sdp.media[0].candidates.len(), sdp.candidates_omitted), (CANDIDATES_MAX, 0));
    assert_eq!(repeat(head, &candidate, CANDIDATES_MAX + 2).candidates_omitted, 2);
    let ssrc = |index: usize| format!("a=ssrc:{index}\n");
    assert_eq!(repeat(head, &ssrc, SSRCS_MAX).ssrcs_omitted, 0);
    assert_eq!(repeat(head, &ssrc, SSRCS_MAX + 1).ssrcs_omitted, 1);
    let name = |len: usize| parsed(&format!("m=audio 1 RTP/AVP 96\na=rtpmap:96 {}/8000", "x".repeat(len)));
    assert_eq!(name(NAME_BYTES_MAX).texts_cut, 0);
    assert_eq!(
        (name(NAME_BYTES_MAX + 1).texts_cut, name(100).media[0].formats[0].name.len()),
        (1, NAME_BYTES_MAX)
    );
    let fmtp = |len: usize| parsed(&format!("m=audio 1 RTP/AVP 96\na=fmtp:96 {}", "x".repeat(len)));
    assert_eq!((fmtp(FMTP_BYTES_MAX).texts_cut, fmtp(FMTP_BYTES_MAX + 1).texts_cut), (0, 1));
    let ports = |count: u16| {
        parsed(&format!("c=IN IP4 192.0.2.1\nm=audio 2/{count} RTP/AVP 0")).media[0].endpoints().count()
    };
    assert_eq!((ports(PORTS_MAX), ports(u16::MAX)), (8, 8));
}

#[test]
fn every_prefix_and_every_changed_byte_is_survived() {
    let mut bytes = RFC_8866.as_bytes().to_vec();
    for len in 0..bytes.len() {
        let _ = parse(&bytes[..len]);
    }
    for at in 0..bytes.len() {
        for value in [0, b'\n', b' ', b':', b'/', b'9', 0xFF] {
            let kept = std::mem::replace(&mut bytes[at], value);
            let _ = parse(&bytes).map(|sdp| sdp.media.iter().flat_map(Media::endpoints).count());
            bytes[at] = kept;
        }
    }
}

#[test]
fn a_description_survives_storage() {
    let sdp = parsed(RFC_8866);
    let bytes = postcard::to_allocvec(&sdp).unwrap();
    assert_eq!(postcard::from_bytes::<Sdp>(&bytes).unwrap(), sdp);
    assert!(sdp.memory() > bytes.len());
}
