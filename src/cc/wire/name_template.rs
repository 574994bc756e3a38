//! Names for streams that have none: a text with `{peer}`, `{port}` and `{time}`. Pure.

use std::net::SocketAddr;

use crate::runtime::time::rfc3339_ms;

/// A template of names, such as `{peer}-{time}.pcap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Address of the peer, without its port.
    Peer,
    Port,
    /// Time of the connection in UTC, with milliseconds.
    Time,
}

impl NameTemplate {
    /// The template of streams from sensors, which never have a name.
    pub(crate) fn of_sensors() -> NameTemplate {
        NameTemplate(vec![Piece::Peer, Piece::Text("-".into()), Piece::Time, Piece::Text(".pcap".into())])
    }

    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<NameTemplate, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((variable, after)) = after.split_once('}') else {
                return Err("a { without }".to_owned());
            };
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match variable {
                "peer" => Piece::Peer,
                "port" => Piece::Port,
                "time" => Piece::Time,
                _ => {
                    return Err(format!(
                        "unknown variable {{{variable}}}: use {{peer}}, {{port}} or {{time}}"
                    ));
                }
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        if pieces.is_empty() {
            return Err("empty".to_owned());
        }
        Ok(NameTemplate(pieces))
    }

    /// Returns the name of a stream.
    pub(crate) fn name(&self, peer: SocketAddr, connected_ms: i64) -> Vec<u8> {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Peer => peer.ip().to_canonical().to_string(),
            Piece::Port => peer.port().to_string(),
            Piece::Time => rfc3339_ms(connected_ms),
        });
        pieces.collect::<String>().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let name = NameTemplate::parse(text)
            .map(|template| template.name("[::ffff:192.0.2.7]:40000".parse().unwrap(), 1_795_294_781_042));
        let name = name.map(|name| String::from_utf8(name).unwrap());
        assert_eq!(name.as_deref().map_err(String::as_str), expected, "{text}");
    }

    #[test]
    fn a_template_is_filled_in() {
        check("{peer}-{time}.pcap", Ok("192.0.2.7-2026-11-21T20:59:41.042Z.pcap"));
        check("x{port}{peer}", Ok("x40000192.0.2.7"));
        check("unnamed.pcap", Ok("unnamed.pcap"));
        check("{", Err("a { without }"));
        check("{host}", Err("unknown variable {host}: use {peer}, {port} or {time}"));
        check("", Err("empty"));
        assert_eq!(NameTemplate::parse("{peer}-{time}.pcap"), Ok(NameTemplate::of_sensors()));
    }
}
