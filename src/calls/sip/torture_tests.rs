//! Messages of RFC 4475, byte for byte from the archive of its appendix A. The name of a case is the file's name.
//!
//! Expected values are those of the RFC's text. An invalid message is read as far as it can be assigned to a call,
//! because the phone that receives it may do the same; only three of them have nothing to assign.

use super::super::sdp;
use super::{Message, SipError, StartLine, text};

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/rfc4475/{name}.dat", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What a case must give: Call-ID, CSeq number and method, From URI and tag, To URI and tag, number of media lines.
struct Case {
    name: &'static str,
    call_id: &'static str,
    cseq: (u32, &'static str),
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
    media: usize,
}

#[rustfmt::skip]
const VALID: &[Case] = &[
    // Section 3.1.1: valid messages.
    Case { name: "wsinv", call_id: "wsinv.ndaksdj@192.0.2.1", cseq: (9, "INVITE"), from: ("sip:jdrosen@example.com", "98asjd8"), to: ("sip:vivekg@chair-dnrc.example.com", "1918181833n"), media: 2 },
    Case { name: "intmeth", call_id: "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{", cseq: (139_122_385, "!interesting-Method0123456789_*+`.%indeed'~"), from: ("sip:mundane@example.com", "_token~1'+`*%!-."), to: ("sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com", ""), media: 0 },
    Case { name: "esc01", call_id: "esc01.239409asdfakjkn23onasd0-3234", cseq: (234_234, "INVITE"), from: ("sip:I%20have%20spaces@example.net", "938"), to: ("sip:%75se%72@example.com", ""), media: 2 },
    Case { name: "escnull", call_id: "escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd", cseq: (14_398_234, "REGISTER"), from: ("sip:null-%00-null@example.com", "839923423"), to: ("sip:null-%00-null@example.com", ""), media: 0 },
    Case { name: "esc02", call_id: "esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf", cseq: (29_344, "RE%47IST%45R"), from: ("sip:resource@example.com", "f232jadfj23"), to: ("sip:resource@example.com", ""), media: 0 },
    Case { name: "lwsdisp", call_id: "lwsdisp.1234abcd@funky.example.com", cseq: (60, "OPTIONS"), from: ("sip:caller@example.com", "323"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "dblreq", call_id: "dblreq.0ha0isndaksdj99sdfafnl3lk233412", cseq: (8, "REGISTER"), from: ("sip:j.user@example.com", "43251j3j324"), to: ("sip:j.user@example.com", ""), media: 0 },
    Case { name: "semiuri", call_id: "semiuri.0ha0isndaksdj", cseq: (8, "OPTIONS"), from: ("sip:caller@example.org", "33242"), to: ("sip:j_user@example.com", ""), media: 0 },
    Case { name: "transports", call_id: "transports.kijh4akdnaqjkwendsasfdj", cseq: (60, "OPTIONS"), from: ("sip:caller@example.com", "323"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "mpart01", call_id: "3d9485ad0c49859b@Zmx1ZmZ5LW1hYy0xNi5sb2NhbA..", cseq: (1, "MESSAGE"), from: ("sip:fluffy@example.com", "2fb0dcc9"), to: ("sip:kumiko@example.org", ""), media: 0 },
    Case { name: "unreason", call_id: "unreason.1234ksdfak3j2erwedfsASdf", cseq: (35, "INVITE"), from: ("sip:user@example.com", "11141343"), to: ("sip:user@example.edu", "2229"), media: 2 },
    Case { name: "noreason", call_id: "noreason.asndj203insdf99223ndf", cseq: (35, "INVITE"), from: ("sip:user@example.com", "39ansfi3"), to: ("sip:user@example.edu", "902jndnke3"), media: 0 },
    // Sections 3.2 to 3.4: well-formed messages that a server answers with an error, or that are unusual.
    Case { name: "badbranch", call_id: "badbranch.sadonfo23i420jv0as0derf3j3n", cseq: (8, "OPTIONS"), from: ("sip:caller@example.org", "33242"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "unkscm", call_id: "unkscm.nasdfasser0q239nwsdfasdkl34", cseq: (3_923_423, "OPTIONS"), from: ("sip:caller@example.net", "384"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "novelsc", call_id: "novelsc.asdfasser0q239nwsdfasdkl34", cseq: (3_923_423, "OPTIONS"), from: ("sip:caller@example.net", "384"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "unksm2", call_id: "unksm2.daksdj@hyphenated-host.example.com", cseq: (234_902, "REGISTER"), from: ("http://www.example.com", "3234233"), to: ("isbn:2983792873", ""), media: 0 },
    Case { name: "bext01", call_id: "bext01.0ha0isndaksdj", cseq: (8, "OPTIONS"), from: ("sip:caller@example.net", "242etr"), to: ("sip:j_user@example.com", ""), media: 0 },
    Case { name: "invut", call_id: "invut.0ha0isndaksdjadsfij34n23d", cseq: (235_448, "INVITE"), from: ("sip:caller@example.net", "8392034"), to: ("sip:j.user@example.com", ""), media: 0 },
    Case { name: "regaut01", call_id: "regaut01.0ha0isndaksdj", cseq: (9_338, "REGISTER"), from: ("sip:j.user@example.com", "87321hj23128"), to: ("sip:j.user@example.com", ""), media: 0 },
    Case { name: "bcast", call_id: "bcast.0384840201234ksdfak3j2erwedfsASdf", cseq: (35, "INVITE"), from: ("sip:user@example.com", "11141343"), to: ("sip:user@example.edu", "2229"), media: 2 },
    Case { name: "zeromf", call_id: "zeromf.jfasdlfnm2o2l43r5u0asdfas", cseq: (39_234_321, "OPTIONS"), from: ("sip:caller@example.net", "3ghsd41"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "cparam01", call_id: "cparam01.70710@saturn.example.com", cseq: (2, "REGISTER"), from: ("sip:watson@example.com", "DkfVgjkrtMwaerKKpe"), to: ("sip:watson@example.com", ""), media: 0 },
    Case { name: "cparam02", call_id: "cparam02.70710@saturn.example.com", cseq: (3, "REGISTER"), from: ("sip:watson@example.com", "838293"), to: ("sip:watson@example.com", ""), media: 0 },
    Case { name: "regescrt", call_id: "regescrt.k345asrl3fdbv@192.0.2.1", cseq: (14_398_234, "REGISTER"), from: ("sip:user@example.com", "8"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "sdp01", call_id: "sdp01.ndaksdj9342dasdd", cseq: (8, "INVITE"), from: ("sip:caller@example.net", "234"), to: ("sip:j_user@example.com", ""), media: 2 },
    Case { name: "inv2543", call_id: "inv2543.1717@ift.client.example.com", cseq: (56, "INVITE"), from: ("sip:+13035551111@ift.client.example.net", ""), to: ("sip:+16505552222@ss1.example.net", ""), media: 1 },
];

#[rustfmt::skip]
const INVALID: &[Case] = &[
    // Semicolons and commas in Via: there is no branch, the rest is read.
    Case { name: "badinv01", call_id: "badinv01.0ha0isndaksdjasdf3234nas", cseq: (8, "INVITE"), from: ("sip:caller@example.net", "134161461246"), to: ("sip:j.user@example.com", ""), media: 2 },
    // Content-Length over the datagram: the body is what is there, and marked as truncated.
    Case { name: "clerr", call_id: "clerr.0ha0isndaksdjweiafasdk3", cseq: (8, "INVITE"), from: ("sip:caller@example.net", "93942939o2"), to: ("sip:j.user@example.com", ""), media: 2 },
    // Negative Content-Length: as if there were none.
    Case { name: "ncl", call_id: "ncl.0ha0isndaksdj2193423r542w35", cseq: (0, "INVITE"), from: ("sip:caller@example.net", "32394234"), to: ("sip:j.user@example.com", ""), media: 2 },
    // CSeq over 32 bits: the largest number.
    Case { name: "scalar02", call_id: "scalar02.23o0pd9vanlq3wnrlnewofjas9ui32", cseq: (u32::MAX, "REGISTER"), from: ("sip:user@example.com", "239232jh3"), to: ("sip:user@example.com", ""), media: 0 },
    Case { name: "scalarlg", call_id: "scalarlg.noase0of0234hn2qofoaf0232aewf2394r", cseq: (u32::MAX, "OPTIONS"), from: ("sip:other@example.net", "2easdjfejw"), to: ("sip:user@example.com", ""), media: 0 },
    // Quote without end: it is part of the display name.
    Case { name: "quotbal", call_id: "quotbal.aksdj", cseq: (8, "INVITE"), from: ("sip:caller@example.net", "93334"), to: ("sip:j.user@example.com", ""), media: 2 },
    // Angle brackets around the request URI: they are not part of it.
    Case { name: "ltgtruri", call_id: "ltgtruri.1@192.0.2.5", cseq: (1, "INVITE"), from: ("sip:caller@example.net", "39291"), to: ("sip:user@example.com", ""), media: 2 },
    // Blanks in the request URI and around it.
    Case { name: "lwsruri", call_id: "lwsruri.asdfasdoeoi2323-asdfwrn23-asd834rk423", cseq: (2_130_706_432, "INVITE"), from: ("sip:caller@example.net", "231413434"), to: ("sip:user@example.com", "3xfe-9921883-z9f"), media: 2 },
    Case { name: "lwsstart", call_id: "lwsstart.dfknq234oi243099adsdfnawe3@example.com", cseq: (1_893_884, "INVITE"), from: ("sip:caller@example.net", "8814"), to: ("sip:user@example.com", ""), media: 2 },
    Case { name: "trws", call_id: "trws.oicu34958239neffasdhr2345r", cseq: (238_923, "OPTIONS"), from: ("sip:local-resource@example.com", "329429089"), to: ("sip:remote-target@example.com", ""), media: 0 },
    // Headers in the request URI, a time zone in Date, headers in an unbracketed Contact: not looked at.
    Case { name: "escruri", call_id: "escruri.23940-asdfhj-aje3br-234q098w-fawerh2q-h4n5", cseq: (149_209_342, "INVITE"), from: ("sip:caller@example.net", "341518"), to: ("sip:user@example.com", ""), media: 2 },
    Case { name: "baddate", call_id: "baddate.239423mnsadf3j23lj42--sedfnm234", cseq: (1_392_934, "INVITE"), from: ("sip:caller@example.net", "2234923"), to: ("sip:user@example.com", ""), media: 2 },
    Case { name: "regbadct", call_id: "regbadct.k345asrl3fdbv@10.0.0.1", cseq: (1, "REGISTER"), from: ("sip:user@example.com", "998332"), to: ("sip:user@example.com", ""), media: 0 },
    // Blanks inside angle brackets, and a comma in an unquoted display name: trimmed, and part of the name.
    Case { name: "badaspec", call_id: "badaspec.sdf0234n2nds0a099u23h3hnnw009cdkne3", cseq: (3_923_239, "OPTIONS"), from: ("sip:a.g.bell@example.com", "433423"), to: ("sip:t.watson@example.org", ""), media: 0 },
    Case { name: "baddn", call_id: "baddn.31415@c.example.com", cseq: (3_923_239, "OPTIONS"), from: ("sip:a.g.bell@example.com", "43"), to: ("sip:t.watson@example.org", ""), media: 0 },
    // Request line and CSeq differ: the request line counts.
    Case { name: "mismatch01", call_id: "mismatch01.dj0234sxdfl3", cseq: (8, "OPTIONS"), from: ("sip:caller@example.net", "34525"), to: ("sip:j.user@example.com", ""), media: 0 },
    Case { name: "mismatch02", call_id: "mismatch02.dj0234sxdfl3", cseq: (8, "NEWMETHOD"), from: ("sip:caller@example.net", "34525"), to: ("sip:j.user@example.com", ""), media: 2 },
    // Headers that may occur once occur twice: the first one counts. So does the first Content-Length.
    Case { name: "multi01", call_id: "multi01.98asdh@192.0.2.1", cseq: (5, "INVITE"), from: ("sip:caller@example.com", "3413415"), to: ("sip:user@example.com", ""), media: 2 },
    Case { name: "mcl01", call_id: "mcl01.fhn2323orihawfdoa3o4r52o3irsdf", cseq: (15_932, "OPTIONS"), from: ("sip:other@example.net", "3923942"), to: ("sip:user@example.com", ""), media: 0 },
];

/// Messages that are rejected: status code 4294967301, version SIP/7.0, and an INVITE without Call-ID, From and To.
const REJECTED: &[(&str, SipError)] =
    &[("bigcode", SipError::NoStartLine), ("badvers", SipError::NoStartLine), ("insuf", SipError::NoCallId)];

fn check_case(case: &Case) {
    let bytes = bytes_of(case.name);
    let message = Message::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let name = case.name;
    assert_eq!(message.call_id, case.call_id.as_bytes(), "{name}");
    assert_eq!((message.cseq.number, message.cseq.method), (case.cseq.0, case.cseq.1.as_bytes()), "{name}");
    assert_eq!(message.from.uri().bare_text(), case.from.0, "{name}");
    assert_eq!(message.from.tag(), case.from.1.as_bytes(), "{name}");
    assert_eq!(message.to.uri().bare_text(), case.to.0, "{name}");
    assert_eq!(message.to.tag(), case.to.1.as_bytes(), "{name}");
    let media = message.content().sdp.map_or(0, |sdp| sdp::parse(sdp).unwrap().media.len());
    assert_eq!(media, case.media, "{name}");
}

#[test]
fn valid_messages_are_read() {
    VALID.iter().for_each(check_case);
}

#[test]
fn invalid_messages_are_read_as_far_as_they_identify_a_call() {
    INVALID.iter().for_each(check_case);
}

#[test]
fn messages_that_identify_no_call_are_rejected() {
    for (name, error) in REJECTED {
        assert_eq!(Message::parse(&bytes_of(name)), Err(*error), "{name}");
    }
}

#[test]
fn all_49_messages_are_checked() {
    // longreq has a test of its own.
    assert_eq!(VALID.len() + INVALID.len() + REJECTED.len() + 1, 49);
}

#[test]
fn long_values_are_read() {
    let bytes = bytes_of("longreq");
    let message = Message::parse(&bytes).unwrap();
    let call_id = format!("longreq.one{}longcallid", "really".repeat(20));
    assert_eq!(message.call_id, call_id.as_bytes());
    assert_eq!((message.cseq.number, message.cseq.method), (3_882_340, &b"INVITE"[..]));
    assert_eq!(message.from.tag(), format!("12{}424", "982".repeat(50)).as_bytes());
    assert_eq!(message.to.uri().user_text(), "user");
    assert_eq!(message.to.uri().port, Some(6000));
    assert_eq!(sdp::parse(message.content().sdp.unwrap()).unwrap().media.len(), 2);
}

#[test]
fn the_tortuous_invite_is_read_in_full() {
    let bytes = bytes_of("wsinv");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.from.display_text(), r#"J Rosenberg \""#);
    assert_eq!((message.via.transport, message.via.sent_by), (&b"UDP"[..], &b"192.0.2.2"[..]));
    assert_eq!(message.via.branch(), b"390skdjuw");
    assert_eq!(message.content_length, Some(150));
    let contact = super::Address::parse_first(message.contact);
    assert_eq!(contact.display_text(), r#"Quoted string """#);
    assert_eq!(contact.param(b"secondparam"), Some(&b""[..]));
    assert_eq!(contact.param(b"q"), Some(&b"0.33"[..]));
    let StartLine::Request { uri, .. } = message.start else { panic!() };
    assert_eq!(uri, b"sip:vivekg@chair-dnrc.example.com;unknownparam");
}

#[test]
fn escaped_users_are_unescaped() {
    let check_users = |name: &str, request: &str, to: &str, from: &str| {
        let bytes = bytes_of(name);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.request_uri().unwrap().user_text(), request, "{name}");
        assert_eq!(message.to.uri().user_text(), to, "{name}");
        assert_eq!(message.from.uri().user_text(), from, "{name}");
    };
    check_users("esc01", "sips:user@example.com", "user", "I have spaces");
    check_users("escnull", "", "null-\0-null", "null-\0-null");
    check_users("semiuri", "user;par=u@example.net", "j_user", "caller");
    let to = "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*";
    check_users("intmeth", to, to, "mundane");
    check_users("ltgtruri", "user", "user", "caller");
    check_users("escruri", "user", "user", "caller");
    check_users("inv2543", "UserB", "+16505552222", "+13035551111");
}

#[test]
fn display_names_keep_what_is_not_an_escape() {
    let display = |name: &str| Message::parse(&bytes_of(name)).unwrap().to.display_text();
    assert_eq!(display("intmeth"), "BEL:\u{7} NUL:\0 DEL:\u{7f}");
    assert_eq!(display("esc02"), "%Z%45");
    assert_eq!(display("quotbal"), "\"Mr. J. User");
    assert_eq!(display("baddn"), "Watson, Thomas");
    assert_eq!(display("badaspec"), "Watson, Thomas");
}

#[test]
fn reasons_are_utf_8_or_missing() {
    let bytes = bytes_of("unreason");
    let StartLine::Response { code, reason } = Message::parse(&bytes).unwrap().start else { panic!() };
    assert_eq!((code, text(reason).as_str()), (200, "= 2**3 * 5**2 но сто девяносто девять - простое"));
    let bytes = bytes_of("noreason");
    assert_eq!(Message::parse(&bytes).unwrap().start, StartLine::Response { code: 100, reason: b"" });
}

#[test]
fn bodies_end_where_content_length_says() {
    let size_of = |name: &str| {
        let bytes = bytes_of(name);
        let message = Message::parse(&bytes).unwrap();
        (message.body.len(), message.is_truncated, bytes.len() - message.size)
    };
    assert_eq!(size_of("mpart01"), (553, false, 0));
    assert_eq!(size_of("mcl01").0, 13);
    let (body, is_truncated, rest) = size_of("clerr");
    assert!(body > 100 && is_truncated && rest == 0);
    let bytes = bytes_of("dblreq");
    let first = Message::parse(&bytes).unwrap();
    assert_eq!(first.body, b"");
    let second = Message::parse(&bytes[first.size..]).unwrap();
    assert_eq!(second.cseq.method, b"INVITE");
    assert_eq!(second.call_id, b"dblreq.0ha0isnda977644900765@192.0.2.15");
}

#[test]
fn every_prefix_and_every_changed_byte_is_survived() {
    for case in VALID.iter().chain(INVALID) {
        let mut bytes = bytes_of(case.name);
        for len in 0..bytes.len() {
            let _ = Message::parse(&bytes[..len]).map(|message| message.content().sdp.map(sdp::parse));
        }
        for at in 0..bytes.len() {
            let value = [0, b'"', b'<', b'\n', b';', 0xFF][at % 6];
            let kept = std::mem::replace(&mut bytes[at], value);
            let _ = Message::parse(&bytes).map(|message| {
                let _ = (message.from.display_text(), message.to.uri().user_text(), message.to.tag());
                message.content().sdp.map(sdp::parse)
            });
            bytes[at] = kept;
        }
    }
}
