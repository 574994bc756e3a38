//! Grok patterns: a syslog line into fields. Pure.
//!
//! A pattern is a regular expression with names in it, `%{WORD:sip_method}`: the words that Logstash knows, and those
//! of the configuration. Patterns are tried in order, the first that fits counts. `%{NUMBER:n:int}` and `:float` make
//! numbers; all else is text. A field `[a][b]` is b in a.
//!
//! Time is bounded: an expression without look-around and back references takes time in proportion to the line, any
//! other gives up after [`STEPS_MAX`] steps, and the line counts as one that does not fit.

use std::collections::HashMap;

use grok::Grok;
use grok::parser::{GrokComponent, grok_split};

/// Patterns of a configuration.
pub const PATTERNS_MAX: usize = 64;

/// Names of a configuration that patterns may use.
pub const DEFINITIONS_MAX: usize = 256;

/// A pattern's bytes. The built-in one has 400.
pub const PATTERN_BYTES_MAX: usize = 8 << 10;

/// Steps back that a match may take: the engine's own bound. See docs/events.md for how long that is.
pub const STEPS_MAX: usize = 1_000_000;

/// The pattern of the honeypots (protocol, section 6), and what real lines have beyond it: any user (`+447...`,
/// `john.doe`), none at all, ports, parameters, IPv6 hosts in brackets, sips and tel, commas in the user agent. Fields are
/// the same; ports have fields of their own.
///
/// Logstash's own words look around themselves, which takes the engine that goes step by step. Between the commas of
/// such a line there is nothing to look around for: with words of our own the engine that goes once over it does.
pub const HONEYPOT: &str = concat!(
    r"^%{LEA_TIME:syslog_timestamp} (?:%{LEA_HOST:syslog_host} )?%{LEA_PROGRAM:syslog_program}",
    r"(?:\[%{LEA_POSINT:syslog_pid}\])?: %{LEA_IP:honey_pot_ip},%{LEA_IP:intruder_ip},%{LEA_WORD:sip_method},",
    r"(?:sips?|tel):(?:%{LEA_USER:ani}@)?%{LEA_DOMAIN:ani_domain}(?::%{LEA_POSINT:ani_port})?(?:;[^,]*)?,",
    r"(?:sips?|tel):(?:%{LEA_USER:dnis}@)?%{LEA_DOMAIN:dnis_domain}(?::%{LEA_POSINT:dnis_port})?(?:;[^,]*)?,",
    r"%{GREEDYDATA:user_agent},\[%{LEA_NUMBER:longitude},%{LEA_NUMBER:latitude}\]$",
);

/// The pattern of protocol, section 6, as it stands there.
pub const HONEYPOT_PLAIN: &str = concat!(
    r"%{SYSLOGTIMESTAMP:syslog_timestamp} %{DATA:syslog_program}(?:\[%{POSINT:syslog_pid}\])?: ",
    r"%{IP:honey_pot_ip},%{IP:intruder_ip},%{WORD:sip_method},sip:%{WORD:ani}@%{HOSTNAME:ani_domain},",
    r"sip:%{GREEDYDATA:dnis}@%{GREEDYDATA:dnis_domain},%{GREEDYDATA:user_agent},",
    r"\[%{NUMBER:longitude},%{NUMBER:latitude}\]",
);

/// The patterns where the configuration has none. The wider one goes first: where a user agent has a comma, the plain one
/// fits too, and puts its begin into the domain.
pub const BUILT_IN: [&str; 2] = [HONEYPOT, HONEYPOT_PLAIN];

/// Words of the built-in patterns, for others too. None of them looks around itself, or keeps a part.
const DEFINITIONS: [(&str, &str); 12] = [
    ("LEA_HOST", r"[^ :\[\],]+"),
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
    ("LEA_IP", r"(?:%{LEA_IPV4}|%{LEA_IPV6})"),
    (
        "LEA_IPV4",
        r"(?:(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])(?:\.(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5])){3})",
    ),
    ("LEA_HEX", r"[0-9A-Fa-f]{1,4}"),
    (
        // Without the two colons, or with them behind so many groups (RFC 4291, 2.2), and a zone (RFC 4007, 11).
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

/// Why a pattern cannot be used. Displays where: the place counts characters of the pattern, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {nth}{}: {reason}", at_character(*.at))]
pub struct PatternError {
    /// Which pattern of the list, from 1.
    pub nth: usize,
    /// Where in it, if that is known.
    pub at: Option<usize>,
    /// Why.
    pub reason: String,
}

fn at_character(at: Option<usize>) -> String {
    at.map_or_else(String::new, |at| format!(", character {at}"))
}

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// As it stands.
    Text(&'a str),
    /// `:int`
    Int(i64),
    /// `:float`; finite.
    Float(f64),
}

/// Fields of a line, and which pattern gave them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields<'a> {
    /// Its place in the list, from 0.
    pub pattern: usize,
    /// Names and values, by name. A name that stands in a pattern more than once may come more than once.
    pub fields: Vec<(&'a str, Value<'a>)>,
}

/// Patterns in order.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    grok: grok::Pattern,
    /// The engine's names, and ours.
    names: HashMap<String, String>,
}

impl Patterns {
    /// Compiles patterns; none: the built-in ones. `definitions` are names that they may use.
    pub fn compile(patterns: &[String], definitions: &[(String, String)]) -> Result<Patterns, PatternError> {
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
        let compiled = texts
            .iter()
            .zip(1..)
            .map(|(text, nth)| compile(&grok, text).map_err(|(at, reason)| PatternError { nth, at, reason }));
        Ok(Patterns { patterns: compiled.collect::<Result<_, _>>()? })
    }

    /// The fields of a line, by the first pattern that fits; none if none does.
    pub fn fields<'a>(&'a self, line: &'a str) -> Option<Fields<'a>> {
        let found = |(pattern, Pattern { grok, names }): (usize, &'a Pattern)| {
            let matches = grok.match_against(line)?;
            let mut fields: Vec<_> = grok
                .capture_names()
                .filter_map(|name| Some((name, span(line, matches.get(name)?)?)))
                .filter_map(|(name, text)| {
                    Some((names.get(name)?.as_str(), value(text, grok.get_extract(name))))
                })
                .collect();
            fields.sort_by_key(|(name, _)| *name);
            Some(Fields { pattern, fields })
        };
        self.patterns.iter().enumerate().find_map(found)
    }
}

/// The part of the line that was matched. What the engine gives lives no longer than its matches.
fn span<'a>(line: &'a str, part: &str) -> Option<&'a str> {
    let from = (part.as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
    line.get(from..from + part.len())
}

fn value<'a>(text: &'a str, kind: Option<&str>) -> Value<'a> {
    let number = match kind {
        Some("int") => text.parse().ok().map(Value::Int),
        Some("float") => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float),
        _ => None,
    };
    number.unwrap_or(Value::Text(text))
}

/// A pattern, or where it is wrong and why.
fn compile(grok: &Grok, text: &str) -> Result<Pattern, (Option<usize>, String)> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err((None, format!("longer than {PATTERN_BYTES_MAX} bytes")));
    }
    check_expression(text)?;
    let compiled = grok.compile(text, true).map_err(|error| match error {
        grok::Error::DefinitionNotFound(name) => {
            (place_of(text, &name), format!("there is no pattern of the name {name}"))
        }
        grok::Error::CompiledPatternIsEmpty(_) => (None, "it is empty".to_owned()),
        grok::Error::RecursionTooDeep => (None, "its names go round in a circle".to_owned()),
        // The rest of the text is the whole expression, which nobody wrote.
        error => (None, error.to_string().lines().next().unwrap_or_default().to_owned()),
    })?;
    let mut names = HashMap::new();
    for name in compiled.capture_names() {
        let field = field(name);
        if field.is_empty() || field.starts_with(['_', '@']) {
            return Err((
                place_of(text, name),
                format!("{field:?} is no name for a field: _ and @ are taken"),
            ));
        }
        names.insert(name.to_owned(), field);
    }
    if names.is_empty() {
        return Err((None, "it names no field, as in %{WORD:name}".to_owned()));
    }
    Ok(Pattern { grok: compiled, names })
}

/// `[a][b]` is b in a; the number behind a name that stands in the pattern again (`name[1]`) goes.
fn field(name: &str) -> String {
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

/// The character at which a name is used, from 1.
fn place_of(text: &str, name: &str) -> Option<usize> {
    let at = text.find(&format!("%{{{name}")).or_else(|| text.find(name))?;
    Some(text[..at].chars().count() + 1)
}

/// Checks the expression between the names, to say where it is wrong: the engine counts in the expression that comes of
/// the whole, which is much longer.
fn check_expression(text: &str) -> Result<(), (Option<usize>, String)> {
    let mut skeleton = String::new();
    // Where each part begins, in the skeleton and in the pattern.
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
                let at = place_of(text, "").filter(|_| text.contains("%{"));
                return Err((
                    at,
                    "a name has the form %{NAME}, %{NAME:field} or %{NAME:field:int}".to_owned(),
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
    // Errors of the inner engine draw the expression over several lines; the last says what is wrong.
    let reason = reason.lines().last().unwrap_or_default().trim().to_owned();
    Err((at.and_then(place), reason))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn patterns(list: &[&str]) -> Patterns {
        let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
        Patterns::compile(&list, &[]).unwrap()
    }

    /// `name=value` of each field.
    fn found(patterns: &Patterns, line: &str) -> Option<String> {
        let fields = patterns.fields(line)?.fields;
        let shown = fields.iter().map(|(name, value)| match value {
            Value::Text(text) => format!("{name}={text}"),
            Value::Int(number) => format!("{name}={number}"),
            Value::Float(number) => format!("{name}={number:?}"),
        });
        Some(shown.collect::<Vec<_>>().join(" "))
    }

    const LINE: &str = "Apr 11 14:02:07 opensips[2101]: 198.51.100.7,203.0.113.9,INVITE,sip:100@198.51.100.7,\
        sip:9011972598294121@198.51.100.7,friendly-scanner,[-46.63,-23.54]";

    #[test]
    fn the_plain_line_gives_the_same_fields_by_both_patterns() {
        let expected = "ani=100 ani_domain=198.51.100.7 dnis=9011972598294121 dnis_domain=198.51.100.7 \
            honey_pot_ip=198.51.100.7 intruder_ip=203.0.113.9 latitude=-23.54 longitude=-46.63 \
            sip_method=INVITE syslog_pid=2101 syslog_program=opensips syslog_timestamp=Apr 11 14:02:07 \
            user_agent=friendly-scanner";
        for pattern in BUILT_IN {
            assert_eq!(found(&patterns(&[pattern]), LINE).as_deref(), Some(expected), "{pattern}");
        }
    }

    /// A line beyond the limits of the plain pattern, and some of its fields.
    fn check_wide(line: &str, expected: &[&str]) {
        let all = found(&patterns(&[]), line).unwrap_or_else(|| panic!("nothing fits {line}"));
        let all = format!(" {all} ");
        for field in expected {
            assert!(all.contains(&format!(" {field} ")), "{field} is not in {all}");
        }
        assert_eq!(patterns(&[]).fields(line).unwrap().pattern, 0, "{line}");
    }

    #[test]
    fn the_wide_pattern_takes_what_the_plain_one_lets_through() {
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
    fn what_does_not_fit_gives_nothing() {
        for line in ["", "hello", &LINE.replace("INVITE", ""), &LINE.replace(']', "")] {
            assert_eq!(found(&patterns(&[]), line), None, "{line}");
        }
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let both = patterns(&["a%{INT:n:int}", "%{NUMBER:x:float}|%{WORD:word}"]);
        assert_eq!(found(&both, "a12").as_deref(), Some("n=12"));
        assert_eq!(found(&both, "1.5").as_deref(), Some("x=1.5"));
        assert_eq!(found(&both, "ab").as_deref(), Some("word=ab"));
        assert_eq!(both.fields("ab").unwrap().pattern, 1);
        let names = patterns(&["%{WORD:[sip][method]} (?<rest>x) %{INT:a}(?: %{INT:a})?"]);
        assert_eq!(found(&names, "BYE x 1 2").as_deref(), Some("a=1 a=2 rest=x sip.method=BYE"));
        assert_eq!(
            found(&patterns(&["%{INT:n:int}"]), "99999999999999999999").as_deref(),
            Some("n=99999999999999999999")
        );
    }

    fn check_error(pattern: &str, expected: &str) {
        let error = Patterns::compile(&["%{WORD:a}".to_owned(), pattern.to_owned()], &[]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_say_where() {
        check_error("é %{WORD:a} %{WROD:b}", "pattern 2, character 13: there is no pattern of the name WROD");
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
            "pattern 2, character 8: \"_id\" is no name for a field: _ and @ are taken",
        );
        check_error("abc", "pattern 2: it names no field, as in %{WORD:name}");
        check_error("", "pattern 2: it is empty");
        check_error(
            "a %{WORD",
            "pattern 2, character 3: a name has the form %{NAME}, %{NAME:field} or %{NAME:field:int}",
        );
        let (fits, over) = ("x".repeat(PATTERN_BYTES_MAX - 9), "x".repeat(PATTERN_BYTES_MAX - 8));
        assert!(Patterns::compile(&[format!("%{{WORD:a}}{fits}")], &[]).is_ok());
        check_error(&format!("%{{WORD:a}}{over}"), "pattern 2: longer than 8192 bytes");
        let circle = [("A".to_owned(), "%{B}".to_owned()), ("B".to_owned(), "%{A}".to_owned())];
        let error = Patterns::compile(&["%{A:a}".to_owned()], &circle).unwrap_err();
        assert_eq!(error.to_string(), "pattern 1: its names go round in a circle");
    }

    #[test]
    fn an_evil_pattern_gives_up() {
        // Look-around and back references cannot be matched in linear time.
        let line = "a".repeat(8 << 10);
        for evil in [r"^(?=(?<x>(a+)+))\k<x>b", r"(?<x>a*)*\k<x>b", r"^(?<x>(?:a|aa|a(?=a))+)$(?!)"] {
            let patterns = patterns(&[evil]);
            let start = Instant::now();
            assert_eq!(patterns.fields(&line), None);
            assert!(start.elapsed().as_secs() < 10, "{evil}: {:?}", start.elapsed());
        }
    }
}
