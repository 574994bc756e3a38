//! One-line representation of a [`Query`] for `--explain` and tests. Pure code.

use std::fmt::{self, Display, Formatter};

use super::{Bound, FieldSelector, Operator, Query, QueryValue, TokenPattern};
use crate::search::geo::GeoShape;

impl Display for Query {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Query::All => f.write_str("all"),
            Query::None => f.write_str("none"),
            Query::Match { fields, text, operator: Operator::Or } => write!(f, "any({fields} {text:?})"),
            Query::Match { fields, text, operator: Operator::And } => write!(f, "every({fields} {text:?})"),
            Query::Phrase { fields, text } => write!(f, "phrase({fields} {text:?})"),
            Query::Term { field, value } => write!(f, "term({field} {value})"),
            Query::Range { fields, from, to, format, zone } => {
                let open = if matches!(from, Bound::Excluded(_)) { '{' } else { '[' };
                let close = if matches!(to, Bound::Excluded(_)) { '}' } else { ']' };
                write!(f, "range({fields} {open}{from} TO {to}{close}")?;
                format.as_ref().map_or(Ok(()), |format| write!(f, " {format}"))?;
                if zone.is_utc() { f.write_str(")") } else { write!(f, " {})", zone.name()) }
            }
            Query::Prefix { fields, prefix } => write!(f, "prefix({fields} {prefix:?})"),
            Query::Wildcard { fields, pattern } => write!(f, "wildcard({fields} {pattern:?})"),
            Query::MatchAtLeast { fields, text, minimum } => write!(f, "some({fields} {text:?})~{minimum}"),
            Query::NearPhrase { fields, text, slop } => write!(f, "phrase({fields} {text:?})~{slop}"),
            Query::PhrasePrefix { fields, text, slop: 0 } => write!(f, "phrase({fields} {text:?}*)"),
            Query::PhrasePrefix { fields, text, slop } => write!(f, "phrase({fields} {text:?}*)~{slop}"),
            Query::Fuzzy { fields, text, operator, fuzziness } => {
                let word = if *operator == Operator::And { "every" } else { "any" };
                write!(f, "{word}({fields} {text:?}~")?;
                fuzziness.edits_max.map_or(Ok(()), |edits| write!(f, "{edits}"))?;
                f.write_str(")")
            }
            Query::Pattern { fields, pattern, ignores_case } => {
                let (kind, text) = match pattern {
                    TokenPattern::Exact(text) => ("token", text),
                    TokenPattern::Prefix(text) => ("prefix of token", text),
                    TokenPattern::Wildcard(text) => ("wildcard of token", text),
                    TokenPattern::Regexp(text) => ("regexp", text),
                };
                let case = if *ignores_case { " in any case" } else { "" };
                write!(f, "{kind}({fields} {text:?}{case})")
            }
            Query::Geo { field, shape, .. } => match shape {
                GeoShape::Circle { center, radius_m } => {
                    write!(f, "within({field} {radius_m} m of {},{})", center.lat, center.lon)
                }
                GeoShape::Box { top, left, bottom, right } => {
                    write!(f, "within({field} {top},{left} to {bottom},{right})")
                }
            },
            Query::Exists { field } => write!(f, "exists({field})"),
            Query::Ids(ids) => write!(f, "ids({})", ids.join(" ")),
            Query::Bool { must, should, must_not, should_min } => {
                f.write_str("(")?;
                let clauses = must.iter().map(|query| ("+", query));
                let clauses = clauses.chain(should.iter().map(|query| ("", query)));
                for (at, (sign, query)) in
                    clauses.chain(must_not.iter().map(|query| ("-", query))).enumerate()
                {
                    write!(f, "{}{sign}{query}", if at == 0 { "" } else { " " })?;
                }
                write!(f, ")")?;
                let usual = usize::from(must.is_empty() && !should.is_empty());
                if *should_min == usual { Ok(()) } else { write!(f, "~{should_min}") }
            }
            Query::Lenient(query) => write!(f, "lenient {query}"),
        }
    }
}

impl Display for FieldSelector {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            FieldSelector::All => f.write_str("*"),
            FieldSelector::Named(names) => f.write_str(&names.join(",")),
        }
    }
}

impl Display for QueryValue {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            QueryValue::Text(text) => write!(f, "{text:?}"),
            QueryValue::Long(number) => write!(f, "{number}"),
            QueryValue::Double(number) => write!(f, "{number:?}"),
            QueryValue::Bool(value) => write!(f, "{value}"),
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Bound::Open => f.write_str("*"),
            Bound::Included(value) | Bound::Excluded(value) => write!(f, "{value}"),
        }
    }
}
