//! Grok patterns: extract fields from a syslog message. Pure.
//!
//! A pattern is a regular expression that refers to named patterns, `%{WORD:sip_method}`. The named patterns are those of
//! Logstash and those of the configuration. Patterns are tried in order; the first match wins. `%{NUMBER:n:int}` and
//! `:float` give numbers; all other fields are text. A field `[a][b]` becomes `a.b`.
//!
//! Time is bounded. An expression without look-around and back references needs linear time. Any other expression stops
//! after 1,000,000 backtracking steps, the default of the engine (docs/events.md has timings). The message then counts as
//! one that does not match.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use grok::Grok;
use grok::parser::{GrokComponent, grok_split};

/// Maximum patterns in the configuration.
pub(crate) const PATTERNS_MAX: usize = 64;

/// Maximum named patterns in the configuration.
pub(crate) const DEFINITIONS_MAX: usize = 256;

/// Maximum size of a pattern. The built-in one has 400 bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 8 << 10;

/// Pattern of the honeypots (docs/protocol.md), extended by what real messages contain: any user (`+447...`, `john.doe`)
/// or no user, ports, URI parameters, IPv6 hosts in brackets, `sips:` and `tel:`, commas in the user agent, and `[,]` for an
/// unknown place. Its fields are those of the plain pattern; ports have additional fields.
///
/// Logstash's named patterns use look-around, which requires the backtracking engine. The comma-separated fields here need
/// no look-around, so own named patterns allow the linear-time engine.
pub(crate) const HONEYPOT: &str = concat!(
    r"^%{LEA_TIME:syslog_timestamp} (?:%{LEA_HOST:syslog_host} )?%{LEA_PROGRAM:syslog_program}",
    r"(?:\[%{LEA_POSINT:syslog_pid}\])?: %{LEA_IP:honey_pot_ip},%{LEA_IP:intruder_ip},%{LEA_WORD:sip_method},",
    r"(?:sips?|tel):(?:%{LEA_USER:ani}@)?%{LEA_DOMAIN:ani_domain}(?::%{LEA_POSINT:ani_port})?(?:;[^,]*)?,",
    r"(?:sips?|tel):(?:%{LEA_USER:dnis}@)?%{LEA_DOMAIN:dnis_domain}(?::%{LEA_POSINT:dnis_port})?(?:;[^,]*)?,",
    r"%{GREEDYDATA:user_agent},\[%{LEA_NUMBER:longitude}?,%{LEA_NUMBER:latitude}?\]$",
);

/// Pattern of the honeypots as their documentation has it (docs/protocol.md), with the own named patterns: those of Logstash
/// would let a message that is made for them take 18 ms.
pub(crate) const HONEYPOT_PLAIN: &str = concat!(
    r"%{LEA_TIME:syslog_timestamp} %{DATA:syslog_program}(?:\[%{LEA_POSINT:syslog_pid}\])?: ",
    r"%{LEA_IP:honey_pot_ip},%{LEA_IP:intruder_ip},%{LEA_WORD:sip_method},sip:%{LEA_WORD:ani}@%{LEA_HOSTNAME:ani_domain},",
    r"sip:%{GREEDYDATA:dnis}@%{GREEDYDATA:dnis_domain},%{GREEDYDATA:user_agent},",
    r"\[%{LEA_NUMBER:longitude},%{LEA_NUMBER:latitude}\]",
);

/// Default patterns. The extended one comes first: if a user agent contains a comma, the plain one matches as well, but puts
/// the part before the comma into the domain.
pub(crate) const BUILT_IN: [&str; 2] = [HONEYPOT, HONEYPOT_PLAIN];

/// Named patterns for the built-in patterns; the configuration may use them too. None has look-around or a capture group.
const DEFINITIONS: [(&str, &str); 13] = [
    ("LEA_HOST", r"[^ :\[\],]+"),
    ("LEA_HOSTNAME", r"[0-9A-Za-z][0-9A-Za-z.-]*"),
    ("LEA_PROGRAM", r"[^ \[\]]*?"),
    ("LEA_USER", r"[^@, ]+"),
    ("LEA_DOMAIN", r"(?:\[[0-9A-Fa-f:.]+\]|[^,:;@ ]+)"),
    (
        "LEA_TIME",
        concat!(
            r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(?:0[1-9]|[12][0-9]|3[01]|[1-9])",
            r" (?:2[0-3]|[01]?[0-9]):[0-5][0-9]:(?:[0-5]?[0-9]|60)(?:[.,][0-9]+)?"
        ),
    ),
    ("LEA_POSINT", r"[1-9][0-9]*"),
    ("LEA_WORD", r"[0-9A-Za-z_]+"),
    ("LEA_NUMBER", r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"),
    // All forms of an address together have thousands of states, and a message that is made for them would take 18 ms. A field
    // of this pattern is checked after the match.
    ("LEA_IP", r"[0-9A-Fa-f:.]+(?:%[^ ,]+)?"),
    (
        "LEA_IPV4",
        r"(?:(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])(?:\.(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])){3})",
    ),
    ("LEA_HEX", r"[0-9A-Fa-f]{1,4}"),
    (
        // All eight groups, or "::" after one to seven of them (RFC 4291, 2.2), and an optional zone (RFC 4007, 11).
        "LEA_IPV6",
        concat!(
            r"(?:(?:%{LEA_HEX}:){7}(?:%{LEA_HEX}|:)",
            r"|(?:%{LEA_HEX}:){6}(?::%{LEA_HEX}|%{LEA_IPV4}|:)",
            r"|(?:%{LEA_HEX}:){5}(?:(?::%{LEA_HEX}){1,2}|:%{LEA_IPV4}|:)",
            r"|(?:%{LEA_HEX}:){4}(?:(?::%{LEA_HEX}){1,3}|(?::%{LEA_HEX})?:%{LEA_IPV4}|:)",
            r"|(?:%{LEA_HEX}:){3}(?:(?::%{LEA_HEX}){1,4}|(?::%{LEA_HEX}){0,2}:%{LEA_IPV4}|:)",
            r"|(?:%{LEA_HEX}:){2}(?:(?::%{LEA_HEX}){1,5}|(?::%{LEA_HEX}){0,3}:%{LEA_IPV4}|:)",
            r"|%{LEA_HEX}:(?:(?::%{LEA_HEX}){1,6}|(?::%{LEA_HEX}){0,4}:%{LEA_IPV4}|:)",
            r"|:(?:(?::%{LEA_HEX}){1,7}|(?::%{LEA_HEX}){0,5}:%{LEA_IPV4}|:))(?:%[^ ,]+)?"
        ),
    ),
];

/// Reason why a pattern is invalid. Displays its position as a character number, starting at 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {number}{}: {reason}", at_character(*.at))]
pub struct PatternError {
    /// Number of the pattern in the list, starting at 1.
    pub number: usize,
    /// Character in the pattern, starting at 1, if known.
    pub at: Option<usize>,
    pub reason: String,
}

fn at_character(at: Option<usize>) -> String {
    at.map_or_else(String::new, |at| format!(", character {at}"))
}

#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    Text(&'a str),
    /// A field with the suffix `:int`.
    Int(i64),
    /// A field with the suffix `:float`; finite.
    Float(f64),
}

/// The result of a match.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchedFields<'a> {
    /// Index of the pattern that matched.
    pub pattern: usize,
    /// Names and values, sorted by name. A name occurs more than once if the pattern contains it more than once.
    pub fields: Vec<(&'a str, FieldValue<'a>)>,
}

/// Compiled patterns in the order in which they are tried.
#[derive(Debug)]
pub struct GrokPatterns {
    patterns: Vec<CompiledPattern>,
}

#[derive(Debug)]
struct CompiledPattern {
    grok: grok::Pattern,
    /// Field names by the names of capture groups.
    names: HashMap<String, String>,
    /// Fields that must be addresses for the pattern to match.
    addresses: Vec<String>,
}

impl GrokPatterns {
    /// Compiles patterns, or the built-in ones if the list is empty. `definitions` are named patterns.
    pub fn compile(
        patterns: &[String],
        definitions: &[(String, String)],
    ) -> Result<GrokPatterns, PatternError> {
        let mut grok = Grok::with_default_patterns();
        for (name, pattern) in DEFINITIONS {
            grok.add_pattern(name, pattern);
        }
        for (name, pattern) in definitions {
            grok.add_pattern(name.as_str(), pattern.as_str());
        }
        let texts: Vec<&str> = match patterns {
            [] => BUILT_IN.to_vec(),
            patterns => patterns.iter().map(String::as_str).collect(),
        };
        let compiled = texts.iter().zip(1..).map(|(text, nth)| {
            compile(&grok, text).map_err(|(at, reason)| PatternError { number: nth, at, reason })
        });
        Ok(GrokPatterns { patterns: compiled.collect::<Result<_, _>>()? })
    }

    /// Returns the fields of the first pattern that matches.
    pub fn match_line<'a>(&'a self, line: &'a str) -> Option<MatchedFields<'a>> {
        let found = |(pattern, compiled): (usize, &'a CompiledPattern)| {
            let CompiledPattern { grok, names, addresses } = compiled;
            let matches = grok.match_against(line)?;
            let mut fields: Vec<_> = grok
                .capture_names()
                .filter_map(|name| Some((name, slice_of(line, matches.get(name)?)?)))
                .filter_map(|(name, text)| {
                    Some((names.get(name)?.as_str(), convert_value(text, grok.get_extract(name))))
                })
                .collect();
            let is_wrong = |(name, value): &(&str, FieldValue<'_>)| {
                addresses.iter().any(|address| address == name)
                    && !matches!(value, FieldValue::Text(text) if is_address(text))
            };
            if fields.iter().any(is_wrong) {
                return None;
            }
            fields.sort_by_key(|(name, _)| *name);
            Some(MatchedFields { pattern, fields })
        };
        self.patterns.iter().enumerate().find_map(found)
    }
}

/// Returns the matched part as a slice of the line, which lives longer than the engine's match.
fn slice_of<'a>(line: &'a str, part: &str) -> Option<&'a str> {
    let from = (part.as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
    line.get(from..from + part.len())
}

fn convert_value<'a>(text: &'a str, kind: Option<&str>) -> FieldValue<'a> {
    let number = match kind {
        Some("int") => text.parse().ok().map(FieldValue::Int),
        Some("float") => text.parse().ok().filter(|number: &f64| number.is_finite()).map(FieldValue::Float),
        _ => None,
    };
    number.unwrap_or(FieldValue::Text(text))
}

/// Compiles a pattern. The error has the character, if known, and the reason.
fn compile(grok: &Grok, text: &str) -> Result<CompiledPattern, (Option<usize>, String)> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err((None, format!("longer than {PATTERN_BYTES_MAX} bytes")));
    }
    check_expression(text)?;
    let compiled = grok.compile(text, true).map_err(|error| match error {
        grok::Error::DefinitionNotFound(name) => {
            (character_of(text, &name), format!("unknown pattern {name}"))
        }
        grok::Error::CompiledPatternIsEmpty(_) => (None, "the pattern is empty".to_owned()),
        grok::Error::RecursionTooDeep => (None, "the definitions refer to each other in a circle".to_owned()),
        // The following lines quote the expanded expression, which the user did not write.
        error => (None, error.to_string().lines().next().unwrap_or_default().to_owned()),
    })?;
    let mut names = HashMap::new();
    for name in compiled.capture_names() {
        let field = field_name(name);
        if field.is_empty() || field.starts_with(['_', '@']) {
            return Err((
                character_of(text, name),
                format!("{field:?} is not a field name: names must not start with _ or @"),
            ));
        }
        names.insert(name.to_owned(), field);
    }
    if names.is_empty() {
        return Err((None, "the pattern has no field; write one as %{WORD:name}".to_owned()));
    }
    Ok(CompiledPattern { grok: compiled, names, addresses: address_fields(text) })
}

/// Returns the fields of `%{LEA_IP:field}` in a pattern.
fn address_fields(text: &str) -> Vec<String> {
    let uses = text.split("%{LEA_IP:").skip(1);
    uses.filter_map(|rest| rest.split(['}', ':']).next()).map(field_name).collect()
}

/// Tells whether a text is an IPv4 address, or an IPv6 address with or without a zone (RFC 4007, 11).
fn is_address(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    if address.contains(':') {
        return address.parse::<Ipv6Addr>().is_ok() && zone != Some("");
    }
    let is_byte = |part: &str| {
        part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u8>().is_ok()
    };
    zone.is_none() && address.split('.').count() == 4 && address.split('.').all(is_byte)
}

/// Converts a capture group's name: `[a][b]` to `a.b`, and `name[1]`, the second use of a name, to `name`.
fn field_name(name: &str) -> String {
    let numbered = name.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
    let name = match numbered {
        Some((base, number)) if !base.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => name,
    };
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(path) => path.replace("][", "."),
        None => name.to_owned(),
    }
}

/// Returns the character at which a name is used, starting at 1.
fn character_of(text: &str, name: &str) -> Option<usize> {
    let at = text.find(&format!("%{{{name}")).or_else(|| text.find(name))?;
    Some(text[..at].chars().count() + 1)
}

/// Checks the expression between the named patterns. Only there can a position be reported: the engine's positions refer to
/// the expanded expression.
fn check_expression(text: &str) -> Result<(), (Option<usize>, String)> {
    let mut skeleton = String::new();
    // Start of each part in the skeleton and in the pattern.
    let mut parts = vec![(0, 0)];
    for component in grok_split(text) {
        match component {
            GrokComponent::RegularExpression { range, string } => {
                parts.push((skeleton.len(), range.start));
                skeleton.push_str(string);
            }
            GrokComponent::GrokPattern { range, .. } => {
                parts.push((skeleton.len(), range.start));
                skeleton.push_str("(?:x)");
            }
            GrokComponent::PatternError(_) => {
                let at = character_of(text, "").filter(|_| text.contains("%{"));
                return Err((
                    at,
                    "invalid reference (expected %{NAME}, %{NAME:field} or %{NAME:field:int})".to_owned(),
                ));
            }
        }
    }
    let (at, reason) = match fancy_regex::Regex::new(&skeleton) {
        Ok(_) => return Ok(()),
        Err(fancy_regex::Error::ParseError(at, error)) => (Some(at), error.to_string()),
        Err(error) => (None, error.to_string()),
    };
    let place = |at: usize| {
        let (from, begin) = parts.iter().rfind(|(from, _)| *from <= at)?;
        let at = text.floor_char_boundary(begin + at - from);
        Some(text[..at].chars().count() + 1)
    };
    // Errors of the inner engine quote the expression over several lines. The last line is the reason.
    let reason = reason.lines().last().unwrap_or_default().trim().to_owned();
    Err((at.and_then(place), reason))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn patterns(list: &[&str]) -> GrokPatterns {
        let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
        GrokPatterns::compile(&list, &[]).unwrap()
    }

    /// Returns `name=value` for each field.
    fn found(patterns: &GrokPatterns, line: &str) -> Option<String> {
        let fields = patterns.match_line(line)?.fields;
        let shown = fields.iter().map(|(name, value)| match value {
            FieldValue::Text(text) => format!("{name}={text}"),
            FieldValue::Int(number) => format!("{name}={number}"),
            FieldValue::Float(number) => format!("{name}={number:?}"),
        });
        Some(shown.collect::<Vec<_>>().join(" "))
    }

    const LINE: &str = "Apr 11 14:02:07 opensips[2101]: 198.51.100.7,203.0.113.9,INVITE,sip:100@198.51.100.7,\
        sip:9011972598294121@198.51.100.7,friendly-scanner,[-46.63,-23.54]";

    #[test]
    fn both_built_in_patterns_give_the_same_fields_for_a_plain_message() {
        let expected = "ani=100 ani_domain=198.51.100.7 dnis=9011972598294121 dnis_domain=198.51.100.7 \
            honey_pot_ip=198.51.100.7 intruder_ip=203.0.113.9 latitude=-23.54 longitude=-46.63 \
            sip_method=INVITE syslog_pid=2101 syslog_program=opensips syslog_timestamp=Apr 11 14:02:07 \
            user_agent=friendly-scanner";
        for pattern in BUILT_IN {
            assert_eq!(found(&patterns(&[pattern]), LINE).as_deref(), Some(expected), "{pattern}");
        }
    }

    /// Checks some fields of a message that only the extended pattern matches.
    fn check_wide(line: &str, expected: &[&str]) {
        let all = found(&patterns(&[]), line).unwrap_or_else(|| panic!("no pattern matches {line}"));
        let all = format!(" {all} ");
        for field in expected {
            assert!(all.contains(&format!(" {field} ")), "{field} is not in {all}");
        }
        assert_eq!(patterns(&[]).match_line(line).unwrap().pattern, 0, "{line}");
    }

    #[test]
    fn the_extended_pattern_matches_what_the_plain_one_does_not() {
        check_wide(&LINE.replace("sip:100@", "sip:+447700900123@"), &["ani=+447700900123"]);
        check_wide(&LINE.replace("sip:100@", "sip:john.doe@"), &["ani=john.doe"]);
        check_wide(&LINE.replace("sip:100@", "sip:"), &["ani_domain=198.51.100.7"]);
        check_wide(
            &LINE.replace("100@198.51.100.7", "100@example.org:5080"),
            &["ani_domain=example.org", "ani_port=5080"],
        );
        check_wide(
            &LINE.replace("121@198.51.100.7", "121@[2001:db8::7]:5060;transport=udp"),
            &["dnis=9011972598294121", "dnis_domain=[2001:db8::7]", "dnis_port=5060"],
        );
        check_wide(
            &LINE.replace("friendly-scanner", "a, b,c"),
            &["user_agent=a, b,c", "dnis_domain=198.51.100.7"],
        );
        check_wide(&LINE.replace("friendly-scanner", ""), &["dnis=9011972598294121"]);
        check_wide(
            &LINE.replace("07 opensips", "07 honey1 opensips"),
            &["syslog_host=honey1", "syslog_program=opensips"],
        );
        check_wide(&LINE.replace("opensips[2101]", "opensips"), &["syslog_program=opensips"]);
        for address in [
            "2001:db8::9",
            "::",
            "::1",
            "1:2:3:4:5:6:7:8",
            "1::",
            "::ffff:203.0.113.9",
            "1:2::7:8",
            "fe80::1%eth0",
        ] {
            check_wide(&LINE.replace("203.0.113.9", address), &[&format!("intruder_ip={address}")]);
        }
        for none in
            ["2001:db8", "256.0.0.1", "1:2:3:4:5:6:7:8:9", "1::2::3", ":::", "12345::", "::g", "1.2.3"]
        {
            assert_eq!(found(&patterns(&[HONEYPOT]), &LINE.replace("203.0.113.9", none)), None, "{none}");
        }
        check_wide(&LINE.replace("Apr 11", "Apr  1"), &["syslog_timestamp=Apr  1 14:02:07"]);
    }

    #[test]
    fn a_message_that_does_not_match_gives_no_fields() {
        for line in ["", "hello", &LINE.replace("INVITE", ""), &LINE.replace(']', "")] {
            assert_eq!(found(&patterns(&[]), line), None, "{line}");
        }
    }

    #[test]
    fn the_first_pattern_that_matches_wins() {
        let both = patterns(&["a%{INT:n:int}", "%{NUMBER:x:float}|%{WORD:word}"]);
        assert_eq!(found(&both, "a12").as_deref(), Some("n=12"));
        assert_eq!(found(&both, "1.5").as_deref(), Some("x=1.5"));
        assert_eq!(found(&both, "ab").as_deref(), Some("word=ab"));
        assert_eq!(both.match_line("ab").unwrap().pattern, 1);
        let names = patterns(&["%{WORD:[sip][method]} (?<rest>x) %{INT:a}(?: %{INT:a})?"]);
        assert_eq!(found(&names, "BYE x 1 2").as_deref(), Some("a=1 a=2 rest=x sip.method=BYE"));
        assert_eq!(
            found(&patterns(&["%{INT:n:int}"]), "99999999999999999999").as_deref(),
            Some("n=99999999999999999999")
        );
    }

    fn check_error(pattern: &str, expected: &str) {
        let error = GrokPatterns::compile(&["%{WORD:a}".to_owned(), pattern.to_owned()], &[]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_have_a_position() {
        check_error("é %{WORD:a} %{WROD:b}", "pattern 2, character 13: unknown pattern WROD");
        check_error(
            "%{WORD:a} (b",
            "pattern 2, character 13: Opening parenthesis without closing parenthesis",
        );
        check_error(
            "%{WORD:a}, é*** %{WORD:b}",
            "pattern 2, character 14: Target of repeat operator is invalid",
        );
        check_error(
            "%{WORD:_id}",
            "pattern 2, character 8: \"_id\" is not a field name: names must not start with _ or @",
        );
        check_error("abc", "pattern 2: the pattern has no field; write one as %{WORD:name}");
        check_error("", "pattern 2: the pattern is empty");
        check_error(
            "a %{WORD",
            "pattern 2, character 3: invalid reference (expected %{NAME}, %{NAME:field} or %{NAME:field:int})",
        );
        let (fits, over) = ("x".repeat(PATTERN_BYTES_MAX - 9), "x".repeat(PATTERN_BYTES_MAX - 8));
        assert!(GrokPatterns::compile(&[format!("%{{WORD:a}}{fits}")], &[]).is_ok());
        check_error(&format!("%{{WORD:a}}{over}"), "pattern 2: longer than 8192 bytes");
        let circle = [("A".to_owned(), "%{B}".to_owned()), ("B".to_owned(), "%{A}".to_owned())];
        let error = GrokPatterns::compile(&["%{A:a}".to_owned()], &circle).unwrap_err();
        assert_eq!(error.to_string(), "pattern 1: the definitions refer to each other in a circle");
    }

    #[test]
    fn t3_messages_made_for_the_built_in_patterns_take_time_in_proportion() {
        let patterns = patterns(&[]);
        for part in ["@,", "@a,[1,", "1.1.1.1,", "a@b,", "sip:1@a,sip:", "Apr 11 14:02:07 ", "1:2:", "::,"] {
            let line = format!(
                "Apr 11 14:02:07 p: 1.1.1.1,2.2.2.2,INVITE,sip:1@a,sip:{}",
                part.repeat(7_500 / part.len())
            );
            let start = Instant::now();
            for _ in 0..20 {
                assert_eq!(patterns.match_line(&line), None);
            }
            // 4 ms each in the debug build; 500 ms before.
            assert!(start.elapsed().as_secs() < 5, "{part}: {:?}", start.elapsed());
        }
        for (text, expected) in [
            ("192.0.2.1", true),
            ("001.2.3.4", true),
            ("256.0.0.1", false),
            ("1.2.3", false),
            ("1.2.3.4%a", false),
            ("::1", true),
            ("fe80::1%eth0", true),
            ("fe80::1%", false),
            ("1:2", false),
            ("", false),
            ("+1.2.3.4", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
    }

    #[test]
    fn a_match_with_exponential_backtracking_gives_up() {
        // Look-around and back references need the backtracking engine.
        let line = "a".repeat(8 << 10);
        for evil in [r"^(?=(?<x>(a+)+))\k<x>b", r"(?<x>a*)*\k<x>b", r"^(?<x>(?:a|aa|a(?=a))+)$(?!)"] {
            let patterns = patterns(&[evil]);
            let start = Instant::now();
            assert_eq!(patterns.match_line(&line), None);
            assert!(start.elapsed().as_secs() < 10, "{evil}: {:?}", start.elapsed());
        }
    }
}
