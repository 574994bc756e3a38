//! A call as a JSON document: what `lea calls list --json` prints.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `@timestamp`, `start` | time | INVITE, or the first message that was captured |
//! | `id` | text | short ID |
//! | `capture` | text | file |
//! | `call_id`, `from_tag` | text | SIP identifiers |
//! | `caller`, `callee` | text | user part of From and To, usually a number |
//! | `caller_uri`, `callee_uri`, `caller_agent`, `callee_agent` | text | URI, and User-Agent or Server |
//! | `state` | text | `trying`, `ringing`, `answered`, `completed`, `cancelled`, `rejected`, `failed` |
//! | `end` | text | `bye_of_caller`, `bye_of_callee`, `cancel`, `response`, `no_bye`, `no_response`, `limit` |
//! | `final_code` | number | status code of the final response to the INVITE |
//! | `ringing`, `answered`, `ended` | time | first 18x, first 2xx, BYE or final error |
//! | `setup_s`, `talk_s` | seconds | INVITE to 18x, answer to end |
//! | `legs` | number | to-tags (forks) |
//! | `messages` | number | SIP messages without retransmissions and copies |
//! | `codec` | list of text | codecs of the streams |
//! | `packets`, `lost` | number | RTP packets received and lost, all streams |
//! | `loss_percent` | number | of the packets that were sent |
//! | `jitter_max_ms` | milliseconds | RFC 3550, maximum of all streams |
//! | `mos_min` | number | ITU-T G.107, minimum of all streams |
//! | `digits` | text | DTMF |
//! | `findings` | list of text | what an analyst should look at |
//! | `streams` | list | RTP streams, see [`stream`] |

use serde_json::{Map, Value, json};

use super::rtp::Window;
use super::view::{Call, Digit, Finding, MediaStream};
use crate::runtime::time::rfc3339_ns;

const NS_PER_S: f64 = 1e9;

/// Converts a call to its document. Unknown values are left out.
pub(crate) fn to_document(call: &Call) -> Value {
    let mut document = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() && value != "" {
            document.insert(name.to_owned(), value);
        }
    };
    let time = |ns: Option<i64>| ns.map_or(Value::Null, |ns| rfc3339_ns(ns).into());
    let seconds = |ns: Option<i64>| ns.map_or(Value::Null, |ns| rounded(ns as f64 / NS_PER_S, 3));
    set("@timestamp", time(Some(call.start_ns)));
    set("id", json!(call.id));
    set("capture", json!(call.capture));
    set("call_id", json!(call.call_id));
    set("from_tag", json!(call.from_tag));
    set("caller", json!(call.caller.user));
    set("callee", json!(call.callee.user));
    set("caller_uri", json!(call.caller.uri));
    set("callee_uri", json!(call.callee.uri));
    set("caller_agent", json!(call.caller.agent));
    set("callee_agent", json!(call.callee.agent));
    set("state", json!(call.state.as_str()));
    set("end", json!(call.end));
    set("final_code", json!(call.final_code));
    set("start", time(Some(call.start_ns)));
    set("ringing", time(call.ringing_ns));
    set("answered", time(call.answered_ns));
    set("ended", time(call.ended_ns));
    set("setup_s", seconds(call.setup_ns()));
    set("talk_s", seconds(call.talk_ns()));
    set("legs", json!(call.legs));
    set("messages", json!(call.messages.len() as u64 + call.messages_omitted));
    set("codec", json!(call.codecs().into_keys().collect::<Vec<_>>()));
    let quality = Quality::of(&call.streams);
    set("packets", json!(quality.packets));
    set("lost", json!(quality.lost));
    set("loss_percent", quality.loss_percent.map_or(Value::Null, |loss| rounded(loss, 3)));
    set("jitter_max_ms", quality.jitter_max_ms.map_or(Value::Null, |jitter| rounded(jitter, 3)));
    set("mos_min", quality.mos_min.map_or(Value::Null, |mos| rounded(mos, 2)));
    set("digits", json!(digits(call)));
    set("findings", json!(call.findings.iter().map(|finding| finding.as_str()).collect::<Vec<_>>()));
    set("streams", call.streams.iter().map(stream).collect());
    Value::Object(document)
}

/// Quality of all streams of a call together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quality {
    pub packets: u64,
    pub lost: u64,
    /// Of the packets that were sent. `None` without packets.
    pub loss_percent: Option<f64>,
    pub jitter_max_ms: Option<f64>,
    pub mos_min: Option<f64>,
}

impl Quality {
    pub(crate) fn of(streams: &[MediaStream]) -> Quality {
        let packets = streams.iter().map(|stream| stream.packets).sum();
        let unique: u64 = streams.iter().map(|stream| stream.packets.saturating_sub(stream.duplicates)).sum();
        let lost = streams.iter().map(|stream| stream.lost).sum();
        Quality {
            packets,
            lost,
            loss_percent: (unique + lost > 0).then(|| 100.0 * lost as f64 / (unique + lost) as f64),
            jitter_max_ms: streams.iter().map(|stream| stream.jitter_max_ms).reduce(f64::max),
            mos_min: streams.iter().filter_map(|stream| stream.mos).reduce(f64::min),
        }
    }
}

/// Packets sent and lost, and the maximum of the jitter, in each window of a stream, as `lea calls rtp --json` prints them.
pub(crate) fn windows(stream: &MediaStream) -> Value {
    let seconds = stream.window_ns as f64 / NS_PER_S;
    let window = |window: &Window| {
        json!({
            "at_s": rounded(f64::from(window.index) * seconds, 3),
            "sent": window.expected,
            "lost": window.lost(),
            "jitter_max_ms": rounded(f64::from(window.jitter_us) / 1e3, 3),
        })
    };
    stream.windows.iter().map(window).collect()
}

/// Converts an RTP stream: addresses, SSRC, codec, and statistics as [`MediaStream`] describes them.
pub(crate) fn stream(stream: &MediaStream) -> Value {
    let ms = |value: f64| rounded(value, 3);
    let optional = |value: Option<f64>| value.map_or(Value::Null, |value| rounded(value, 3));
    let mut document = json!({
        "source": stream.source.to_string(),
        "destination": stream.destination.to_string(),
        "ssrc": format!("0x{:08x}", stream.ssrc),
        "side": stream.side,
        "binding": stream.binding,
        "codec": stream.codec,
        "clock_hz": stream.clock_hz,
        "clock_estimated": stream.is_clock_estimated,
        "encrypted": stream.is_encrypted,
        "first": rfc3339_ns(stream.first_ns),
        "last": rfc3339_ns(stream.last_ns),
        "packets": stream.packets,
        "payload_bytes": stream.payload_bytes,
        "lost": stream.lost,
        "lost_by_capture": stream.lost_by_capture,
        "duplicates": stream.duplicates,
        "reordered": stream.reordered,
        "late": stream.late,
        "copies": stream.copies,
        "restarts": stream.restarts,
        "loss_runs": stream.loss_runs,
        "jitter_mean_ms": ms(stream.jitter_mean_ms),
        "jitter_max_ms": ms(stream.jitter_max_ms),
        "delta_mean_ms": ms(stream.delta_mean_ms),
        "delta_max_ms": ms(stream.delta_max_ms),
        "mos": stream.mos.map_or(Value::Null, |mos| rounded(mos, 2)),
        "reported_loss": optional(stream.reported_loss),
        "reported_jitter_ms": optional(stream.reported_jitter_ms),
        "reported_rtt_ms": optional(stream.reported_rtt_ms),
        "reported_mos": optional(stream.reported_mos),
    });
    if let Value::Object(fields) = &mut document {
        fields.retain(|_, value| !value.is_null());
    }
    document
}

/// Digits of all streams and of SIP INFO, in the order of time.
fn digits(call: &Call) -> String {
    let mut digits: Vec<&Digit> =
        call.streams.iter().flat_map(|stream| &stream.digits).chain(&call.info_digits).collect();
    digits.sort_by_key(|digit| digit.time_ns);
    digits.into_iter().map(|digit| digit.digit).collect()
}

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}

/// What a finding says about a call, in words.
pub(crate) fn finding_text(finding: Finding, call: &Call) -> String {
    match finding {
        Finding::OneWay => match call.silent_side() {
            Some(side) => format!("one way: {} silent", side.as_str()),
            None => "one way".to_owned(),
        },
        other => other.as_str().replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::samples::answered_call;

    #[test]
    fn each_field_is_documented() {
        let document = to_document(&Call { findings: vec![Finding::Loss], ..answered_call() });
        let text = include_str!("document.rs");
        let table: Vec<&str> = text.lines().filter(|line| line.starts_with("//! | `")).collect();
        for name in document.as_object().unwrap().keys() {
            assert!(
                table.iter().any(|line| line.contains(&format!("`{name}`"))),
                "{name} is not in the table"
            );
        }
    }

    #[test]
    fn an_answered_call() {
        let document = to_document(&answered_call());
        assert_eq!(document["@timestamp"], "2026-11-21T20:59:41.102000000Z");
        assert_eq!((&document["talk_s"], &document["setup_s"]), (&json!(10.022), &json!(0.198)));
        assert_eq!((&document["codec"], &document["loss_percent"]), (&json!(["PCMA"]), &json!(0.0)));
        assert_eq!(document["streams"][0]["mos"], json!(4.41));
        assert!(document.get("caller_agent").is_none());
    }
}
