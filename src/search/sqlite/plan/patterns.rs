//! Plans of clauses about patterns, similar words, parts of texts and areas.

use super::super::catalog::FieldEntry;
use super::super::pattern::WildcardPattern;
use super::super::term_pattern::{FuzzyPattern, TermPattern};
use super::super::text;
use super::{
    DEFAULT_TYPE, Operand, PlanResult, Planner, QueryPlan, all_of, at_least, glob_matches, no_pattern,
    query_error, term_key,
};
use crate::search::geo::GeoShape;
use crate::search::mapping::FieldType;
use crate::search::query::query_dsl::minimum_count;
use crate::search::query::{Fuzziness, Operator, QueryValue, TokenPattern};
use crate::search::store::StoreError;

impl Planner<'_> {
    /// Plans a search for tokens that match a pattern, which is not normalized.
    pub(super) fn plan_token_pattern(
        &self,
        operand: Operand<'_>,
        pattern: &TokenPattern,
        ignores_case: bool,
        lenient: bool,
    ) -> PlanResult {
        let query = match pattern {
            TokenPattern::Exact(_) => "term",
            TokenPattern::Prefix(_) => "prefix",
            TokenPattern::Wildcard(_) => "wildcard",
            TokenPattern::Regexp(_) => "regexp",
        };
        let entry = match operand {
            Operand::Field(entry) => entry,
            Operand::Id if lenient => return Ok(QueryPlan::None),
            Operand::Id => return Err(no_pattern(query, "_id", "_id")),
            // As in Elasticsearch, only `*` has a meaning in the name of an index.
            Operand::Index => {
                let fits = match pattern {
                    TokenPattern::Exact(text) | TokenPattern::Wildcard(text) => {
                        glob_matches(text, &self.index.name)
                    }
                    TokenPattern::Prefix(prefix) => self.index.name.starts_with(prefix.as_str()),
                    TokenPattern::Regexp(_) => compile(pattern, false)?.matches(self.index.name.as_bytes()),
                };
                return Ok(if fits { self.all_docs() } else { QueryPlan::None });
            }
            Operand::Metadata(field) => {
                let compiled = compile(pattern, ignores_case)?;
                let is_default = compiled.matches(DEFAULT_TYPE.as_bytes());
                let found = self.matching(field, compiled);
                return Ok(self.with_default_type(field, is_default, found));
            }
        };
        self.check_indexed(entry)?;
        match entry.field.field_type {
            FieldType::Text | FieldType::Keyword => match (pattern, ignores_case) {
                (TokenPattern::Prefix(prefix), false) => {
                    Ok(self.plan_pattern(entry.id, WildcardPattern::prefix(prefix)))
                }
                (TokenPattern::Wildcard(text), false) => {
                    Ok(self.plan_pattern(entry.id, WildcardPattern::wildcard(text)))
                }
                (pattern, _) => Ok(self.matching(entry.id, compile(pattern, ignores_case)?)),
            },
            _ if lenient => Ok(QueryPlan::None),
            _ => match pattern {
                TokenPattern::Exact(text) => {
                    self.plan_equal(Operand::Field(entry), &QueryValue::Text(text.clone()), lenient)
                }
                _ => Err(no_pattern(query, &entry.name, entry.field.type_name())),
            },
        }
    }

    fn matching(&self, field: u16, pattern: TermPattern) -> QueryPlan {
        QueryPlan::Matching(term_key(self.index.id, field, pattern.literal_prefix()), pattern)
    }

    /// Plans a search for words that are similar to those of a text.
    pub(super) fn plan_fuzzy(
        &self,
        operand: Operand<'_>,
        text_value: &str,
        operator: Operator,
        fuzziness: &Fuzziness,
        lenient: bool,
    ) -> PlanResult {
        let similar = |entry: &FieldEntry, word: &str| {
            let edits = fuzziness.edits_of(word);
            match edits {
                0 => self.term(entry.id, word.as_bytes()),
                edits => {
                    let pattern = FuzzyPattern::new(word, edits, fuzziness.prefix_chars, fuzziness.swaps);
                    self.matching(entry.id, TermPattern::Fuzzy(pattern))
                }
            }
        };
        match operand {
            Operand::Field(entry) if entry.field.field_type == FieldType::Text => {
                self.check_indexed(entry)?;
                let mut plans = Vec::new();
                text::each_word(text_value, |word, _| plans.push(similar(entry, word)));
                Ok(match operator {
                    Operator::Or => at_least(1, plans),
                    Operator::And => all_of(plans),
                })
            }
            Operand::Field(entry) if entry.field.field_type == FieldType::Keyword => {
                self.check_indexed(entry)?;
                Ok(similar(entry, text_value))
            }
            operand => self.plan_match(operand, text_value, operator, lenient),
        }
    }

    /// Plans a search for a number of the words of a text.
    pub(super) fn plan_match_at_least(
        &self,
        operand: Operand<'_>,
        text_value: &str,
        minimum: &str,
        lenient: bool,
    ) -> PlanResult {
        let entry = match operand {
            Operand::Field(entry) if entry.field.field_type == FieldType::Text => entry,
            operand => return self.plan_match(operand, text_value, Operator::Or, lenient),
        };
        self.check_indexed(entry)?;
        let mut terms = Vec::new();
        text::each_word(text_value, |word, _| terms.push(self.term(entry.id, word.as_bytes())));
        let count = minimum_count(minimum, terms.len()).map_err(|error| query_error(error.reason))?;
        // One word is always required.
        Ok(if count > terms.len() { QueryPlan::None } else { at_least(count.max(1), terms) })
    }

    /// Plans a search for a phrase whose last word is a prefix.
    pub(super) fn plan_phrase_prefix(
        &self,
        operand: Operand<'_>,
        text_value: &str,
        slop: u32,
        lenient: bool,
    ) -> PlanResult {
        let entry = match operand {
            Operand::Field(entry) if entry.field.field_type == FieldType::Text => entry,
            _ if lenient => return Ok(QueryPlan::None),
            Operand::Field(entry) => {
                let (name, type_name) = (&entry.name, entry.field.type_name());
                return Err(query_error(format!(
                    "Can only use phrase prefix queries on text fields - not on [{name}] which is of type [{type_name}]"
                )));
            }
            operand => return self.plan_match(operand, text_value, Operator::And, lenient),
        };
        self.check_indexed(entry)?;
        let mut words = Vec::new();
        text::each_word(text_value, |word, at| {
            words.push((term_key(self.index.id, entry.id, word.as_bytes()), at));
        });
        Ok(match words.pop() {
            None => QueryPlan::None,
            Some(last) => QueryPlan::PhrasePrefix(words, last, slop),
        })
    }

    /// Plans a search for points in an area.
    pub(super) fn plan_geo(&self, name: &str, shape: GeoShape, ignores_unmapped: bool) -> PlanResult {
        match self.fields.get(name) {
            Some(entry) if entry.field.field_type == FieldType::GeoPoint => {
                self.check_indexed(entry)?;
                Ok(self.matching(entry.id, TermPattern::Geo(shape)))
            }
            Some(entry) => {
                let type_name = entry.field.type_name();
                Err(query_error(format!(
                    "Field [{name}] is of unsupported type [{type_name}] for this query"
                )))
            }
            None if ignores_unmapped => Ok(QueryPlan::None),
            None => Err(StoreError::Invalid(format!("failed to find geo field [{name}]"))),
        }
    }
}

fn compile(pattern: &TokenPattern, ignores_case: bool) -> Result<TermPattern, StoreError> {
    let wildcard = |pattern: WildcardPattern| match ignores_case {
        true => TermPattern::WildcardIgnoringCase(pattern.lowercase()),
        false => TermPattern::Wildcard(pattern),
    };
    match pattern {
        TokenPattern::Exact(text) => Ok(wildcard(WildcardPattern::literal(text))),
        TokenPattern::Prefix(prefix) => Ok(wildcard(WildcardPattern::prefix(prefix))),
        TokenPattern::Wildcard(text) => Ok(wildcard(WildcardPattern::wildcard(text))),
        TokenPattern::Regexp(text) => TermPattern::regexp(text, ignores_case).map_err(query_error),
    }
}
