//! The `terms` aggregation: documents per value.

use std::collections::{HashMap, HashSet};

use roaring::RoaringBitmap;

use super::super::plan::{QueryPlan, term_key};
use super::AggregationRun;
use super::format::ValueFormat;
use super::metrics::unsupported_type;
use super::order::{OrderValues, compare, needs_metrics};
use super::source::AggregatedField;
use crate::search::mapping::FieldType;
use crate::search::query::OutputJson;
use crate::search::query::aggregations::{NamedAggregations, TermsAggregation, ValueFilter, ValueSource};
use crate::search::regexp::Regexp;
use crate::search::store::StoreError;

type Term = OrderValues<Vec<u8>>;

/// Values that are accepted or not.
enum CompiledFilter {
    Pattern(Regexp),
    Values(HashSet<Vec<u8>>),
}

impl CompiledFilter {
    fn new(
        filter: &ValueFilter,
        field: &AggregatedField,
        source: &ValueSource,
    ) -> Result<CompiledFilter, StoreError> {
        match filter {
            ValueFilter::Pattern(_) if field.kind != FieldType::Keyword => Err(StoreError::Invalid(
                "Aggregation cannot support regular expression style include/exclude settings as they can only be \
                 applied to string fields. Use an array of values for include/exclude clauses"
                    .to_owned(),
            )),
            ValueFilter::Pattern(pattern) => {
                Regexp::new(pattern, false).map(CompiledFilter::Pattern).map_err(StoreError::Invalid)
            }
            ValueFilter::Values(values) => {
                let values = values.iter().map(|value| field.encode(value, source));
                Ok(CompiledFilter::Values(values.collect::<Result<_, _>>()?))
            }
        }
    }

    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            CompiledFilter::Pattern(regexp) => regexp.is_match(value),
            CompiledFilter::Values(values) => values.contains(value),
        }
    }
}

/// Collector of the first buckets.
struct TopTerms<'t> {
    terms: &'t TermsAggregation,
    include: Option<CompiledFilter>,
    exclude: Option<CompiledFilter>,
    buckets: Vec<Term>,
    /// Documents in all buckets, the dropped ones included.
    documents: u64,
}

impl TopTerms<'_> {
    fn accepts(&self, value: &[u8]) -> bool {
        self.include.as_ref().is_none_or(|filter| filter.accepts(value))
            && self.exclude.as_ref().is_none_or(|filter| !filter.accepts(value))
    }

    fn keep(&mut self, value: &[u8], count: u64, metrics: Vec<f64>) {
        if count < self.terms.count_min {
            return;
        }
        self.documents += count;
        self.buckets.push(Term { key: value.to_vec(), count, metrics });
        // The list is cut rarely, so that sorting costs little, but its size stays bounded.
        if self.buckets.len() >= self.terms.size.saturating_mul(2).saturating_add(1_000) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.buckets.sort_by(|a, b| compare(&self.terms.order, a, b, Ord::cmp));
        self.buckets.truncate(self.terms.size);
    }
}

impl AggregationRun<'_> {
    pub(super) fn terms(
        &self,
        docs: &RoaringBitmap,
        terms: &TermsAggregation,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<(&'static str, OutputJson), StoreError> {
        let Some(field) = self.field(&terms.source, FieldType::Keyword)? else {
            return Ok(("umterms", render(Vec::new(), 0)));
        };
        if field.kind == FieldType::GeoPoint {
            return Err(unsupported_type(&field, "terms"));
        }
        let compile = |filter: &Option<ValueFilter>| {
            filter.as_ref().map(|filter| CompiledFilter::new(filter, &field, &terms.source)).transpose()
        };
        let mut top = TopTerms {
            terms,
            include: compile(&terms.include)?,
            exclude: compile(&terms.exclude)?,
            buckets: Vec::new(),
            documents: 0,
        };
        if needs_metrics(&terms.order) {
            self.each_group(&field, docs, depth, &mut |value, found| {
                if top.accepts(value) {
                    let metrics = self.order_metrics(&terms.order, &found, inner, depth + 1)?;
                    top.keep(value, found.len(), metrics);
                }
                Ok(true)
            })?;
        } else if terms.count_min == 0 {
            self.collect_with_empty(&field, docs, depth, &mut top)?;
        } else {
            self.each_count(&field, docs, depth, &mut |value, count| {
                if top.accepts(value) {
                    top.keep(value, count, Vec::new());
                }
                // All values are visited, because the documents outside the returned buckets are counted.
                Ok(true)
            })?;
        }
        top.cut();
        let kept: u64 = top.buckets.iter().map(|bucket| bucket.count).sum();
        let others = top.documents - kept;
        self.add_buckets(top.buckets.len())?;
        let format = field.value_format(&terms.source);
        let buckets = self.render_terms(&field, docs, terms, inner, depth, &format, top.buckets)?;
        Ok((typed_name(field.kind), render(buckets, others)))
    }

    /// Collects all values of the indices, those without a document too.
    fn collect_with_empty(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        depth: usize,
        top: &mut TopTerms<'_>,
    ) -> Result<(), StoreError> {
        let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
        self.each_count(field, docs, depth, &mut |value, count| {
            counts.insert(value.to_vec(), count);
            Ok(true)
        })?;
        let all = self.all_docs()?;
        self.each_count(field, &all, 0, &mut |value, _| {
            if top.accepts(value) {
                top.keep(value, counts.get(value).copied().unwrap_or_default(), Vec::new());
            }
            Ok(true)
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn render_terms(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        terms: &TermsAggregation,
        inner: &NamedAggregations,
        depth: usize,
        format: &ValueFormat,
        found: Vec<Term>,
    ) -> Result<Vec<OutputJson>, StoreError> {
        let mut of_values = HashMap::new();
        let is_top = field.is_plain() && depth == 0;
        if !inner.is_empty() && !is_top {
            let wanted: HashSet<&[u8]> = found.iter().map(|bucket| bucket.key.as_slice()).collect();
            self.each_group(field, docs, depth, &mut |value, found| {
                if wanted.contains(value) {
                    of_values.insert(value.to_vec(), found);
                }
                Ok(true)
            })?;
        }
        let mut buckets = Vec::with_capacity(found.len());
        for bucket in &found {
            // A key in JSON can be six times as long as its bytes.
            self.run.context.charge(3 * bucket.key.len())?;
            let (key, text) = format.key(field.kind, &bucket.key, field.number(&bucket.key));
            let mut members = vec![("key".to_owned(), key)];
            members.extend(text.map(|text| ("key_as_string".to_owned(), OutputJson::Text(text))));
            members.push(("doc_count".to_owned(), OutputJson::count(bucket.count)));
            if terms.shows_error {
                members.push(("doc_count_error_upper_bound".to_owned(), OutputJson::Long(0)));
            }
            if !inner.is_empty() {
                let docs_here = match of_values.remove(&bucket.key) {
                    Some(docs_here) => docs_here,
                    None => self.docs_with_value(field, &bucket.key)? & docs,
                };
                members.extend(self.run_level(&docs_here, inner, depth + 1)?);
            }
            buckets.push(OutputJson::Object(members));
        }
        Ok(buckets)
    }

    /// Returns the documents that have a value of a plain field.
    fn docs_with_value(&self, field: &AggregatedField, value: &[u8]) -> Result<RoaringBitmap, StoreError> {
        let mut docs = RoaringBitmap::new();
        for (index, field) in field.field_ids() {
            docs |= self.run.context.find(index, &QueryPlan::Term(term_key(index, field, value)))?;
        }
        Ok(docs)
    }
}

fn render(buckets: Vec<OutputJson>, others: u64) -> OutputJson {
    OutputJson::Object(vec![
        ("doc_count_error_upper_bound".to_owned(), OutputJson::Long(0)),
        ("sum_other_doc_count".to_owned(), OutputJson::count(others)),
        ("buckets".to_owned(), OutputJson::List(buckets)),
    ])
}

/// Elasticsearch's name of the type of the result.
fn typed_name(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Long | FieldType::Date | FieldType::Boolean => "lterms",
        FieldType::Double => "dterms",
        _ => "sterms",
    }
}
