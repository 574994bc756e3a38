//! The `composite` aggregation: documents per combination of values, in pages.
//!
//! The values of the first source are visited in order, then those of the second among their documents, and so on, so
//! that only the combinations of one page are kept.

use std::cmp::Ordering;

use roaring::RoaringBitmap;

use super::format::ValueFormat;
use super::histogram::NumberGrid;
use super::metrics::unsupported_type;
use super::source::AggregatedField;
use super::time_grid::TimeGrid;
use super::{AggregationRun, FieldType, Members};
use crate::search::query::aggregations::{Composite, CompositeGrid, CompositeSource, NamedAggregations};
use crate::search::query::{OutputJson, QueryValue};
use crate::search::store::StoreError;

/// A part of a key. The order of the variants does not matter, because a source has one kind.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum KeyPart {
    Null,
    Bytes(Vec<u8>),
    Number(f64),
    Time(i64),
}

/// A source with what it needs to make keys.
struct ResolvedSource<'s> {
    source: &'s CompositeSource,
    field: Option<AggregatedField>,
    format: ValueFormat,
}

/// A page that is being filled.
struct CompositePage {
    after: Option<Vec<KeyPart>>,
    size: usize,
    found: Vec<(Vec<KeyPart>, RoaringBitmap)>,
}

impl ResolvedSource<'_> {
    fn is_null_first(&self) -> bool {
        self.source.missing_first.unwrap_or(self.source.ascending)
    }

    /// Compares two parts in the order of the source.
    fn compare(&self, a: &KeyPart, b: &KeyPart) -> Ordering {
        match (a, b) {
            (KeyPart::Null, KeyPart::Null) => Ordering::Equal,
            (KeyPart::Null, _) => {
                if self.is_null_first() {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (_, KeyPart::Null) => {
                if self.is_null_first() {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (a, b) => {
                let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
                if self.source.ascending { order } else { order.reverse() }
            }
        }
    }

    fn time_grid(&self) -> Option<TimeGrid> {
        match self.source.grid {
            CompositeGrid::DateHistogram { interval, offset_ms } => {
                Some(TimeGrid { interval, zone: self.source.source.zone, offset_ms })
            }
            _ => None,
        }
    }

    fn key_part(&self, field: &AggregatedField, value: &[u8]) -> KeyPart {
        match (self.source.grid, self.time_grid()) {
            (_, Some(grid)) => KeyPart::Time(grid.bucket_start(field.number(value) as i64)),
            (CompositeGrid::Histogram { interval }, _) => {
                let grid = NumberGrid { interval, offset: 0.0 };
                KeyPart::Number(grid.key(grid.nth(field.number(value))))
            }
            _ => KeyPart::Bytes(value.to_vec()),
        }
    }

    /// Reads a part of `after`.
    fn parse_after(&self, value: Option<&QueryValue>) -> Result<KeyPart, StoreError> {
        let Some(value) = value else { return Ok(KeyPart::Null) };
        let (source, kind) = (&self.source.source, FieldType::Keyword);
        let unmapped;
        let field = match &self.field {
            Some(field) => field,
            None => {
                unmapped = AggregatedField::unmapped(&source.field, kind);
                &unmapped
            }
        };
        match (self.source.grid, value) {
            (CompositeGrid::Terms, value) => field.encode(value, source).map(KeyPart::Bytes),
            (CompositeGrid::Histogram { .. }, QueryValue::Long(number)) => {
                Ok(KeyPart::Number(*number as f64))
            }
            (CompositeGrid::Histogram { .. }, QueryValue::Double(number)) => Ok(KeyPart::Number(*number)),
            (CompositeGrid::DateHistogram { .. }, value) => {
                field.parse_date(value, source, 0).map(KeyPart::Time)
            }
            (_, value) => {
                Err(StoreError::Invalid(format!("Invalid value {value} for [after.{}]", self.source.name)))
            }
        }
    }

    fn render(&self, part: &KeyPart) -> OutputJson {
        let with_format = |number: f64, raw: OutputJson| match self.source.source.format {
            Some(_) => self.format.write(number).map_or(raw, OutputJson::Text),
            None => raw,
        };
        match part {
            KeyPart::Null => OutputJson::Null,
            KeyPart::Number(number) => OutputJson::Double(*number),
            KeyPart::Time(ms) => with_format(*ms as f64, OutputJson::Long(*ms)),
            KeyPart::Bytes(value) => match &self.field {
                Some(field) if field.kind == FieldType::Boolean => {
                    OutputJson::Bool(value.first() == Some(&1))
                }
                Some(field) => {
                    let number = field.number(value);
                    with_format(number, self.format.key(field.kind, value, number).0)
                }
                None => OutputJson::Null,
            },
        }
    }
}

impl AggregationRun<'_> {
    pub(super) fn composite(
        &self,
        docs: &RoaringBitmap,
        composite: &Composite,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<OutputJson, StoreError> {
        let sources = composite.sources.iter().map(|source| self.resolve_source(source));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let after = composite.after.as_ref().map(|after| {
            sources.iter().zip(after).map(|(source, value)| source.parse_after(value.as_ref())).collect()
        });
        let mut page = CompositePage { after: after.transpose()?, size: composite.size, found: Vec::new() };
        let is_after = page.after.is_some();
        self.fill_page(&sources, docs, depth, &mut Vec::new(), is_after, &mut page)?;
        self.add_buckets(page.found.len())?;
        let mut buckets = Vec::with_capacity(page.found.len());
        let mut after_key = None;
        for (parts, docs) in &page.found {
            let key = sources
                .iter()
                .zip(parts)
                .map(|(source, part)| (source.source.name.clone(), source.render(part)));
            let key = OutputJson::Object(key.collect());
            after_key = Some(key.clone());
            let mut members: Members =
                vec![("key".to_owned(), key), ("doc_count".to_owned(), OutputJson::count(docs.len()))];
            members.extend(self.run_level(docs, inner, depth + 1)?);
            buckets.push(OutputJson::Object(members));
        }
        let mut members: Members = after_key.map(|key| ("after_key".to_owned(), key)).into_iter().collect();
        members.push(("buckets".to_owned(), OutputJson::List(buckets)));
        Ok(OutputJson::Object(members))
    }

    fn resolve_source<'s>(&self, source: &'s CompositeSource) -> Result<ResolvedSource<'s>, StoreError> {
        let (type_name, kind) = match source.grid {
            CompositeGrid::Terms => ("composite", FieldType::Keyword),
            CompositeGrid::Histogram { .. } => ("histogram", FieldType::Double),
            CompositeGrid::DateHistogram { .. } => ("date_histogram", FieldType::Date),
        };
        let field = self.field(&source.source, kind)?;
        if let Some(field) = &field {
            let needs_number = source.grid != CompositeGrid::Terms;
            if field.kind == FieldType::GeoPoint || needs_number && !field.is_numeric() {
                return Err(unsupported_type(field, type_name));
            }
        }
        let format = match &field {
            Some(field) => field.value_format(&source.source),
            None => ValueFormat::Raw,
        };
        Ok(ResolvedSource { source, field, format })
    }

    /// Adds the combinations that start with `prefix` to the page. `is_bounded`: the prefix is that of `after`, so
    /// smaller combinations belong to earlier pages.
    fn fill_page(
        &self,
        sources: &[ResolvedSource<'_>],
        docs: &RoaringBitmap,
        depth: usize,
        prefix: &mut Vec<KeyPart>,
        is_bounded: bool,
        page: &mut CompositePage,
    ) -> Result<(), StoreError> {
        let level = prefix.len();
        let Some(source) = sources.get(level) else {
            // The combination in `after` itself was on the page before.
            if !is_bounded {
                page.found.push((prefix.clone(), docs.clone()));
            }
            return Ok(());
        };
        let after = page.after.as_ref().filter(|_| is_bounded).map(|after| after[level].clone());
        for (part, docs) in self.composite_groups(source, docs, depth + level)? {
            let order = after.as_ref().map(|after| source.compare(&part, after));
            if order == Some(Ordering::Less) {
                continue;
            }
            prefix.push(part);
            self.fill_page(sources, &docs, depth, prefix, order == Some(Ordering::Equal), page)?;
            prefix.pop();
            if page.found.len() >= page.size {
                break;
            }
        }
        Ok(())
    }

    /// Returns the documents of each value of a source, in its order.
    fn composite_groups(
        &self,
        source: &ResolvedSource<'_>,
        docs: &RoaringBitmap,
        depth: usize,
    ) -> Result<Vec<(KeyPart, RoaringBitmap)>, StoreError> {
        let mut groups: Vec<(KeyPart, RoaringBitmap)> = Vec::new();
        let mut rest = docs.clone();
        if let Some(field) = &source.field {
            self.each_group(field, docs, depth, &mut |value, found| {
                rest -= &found;
                let part = source.key_part(field, value);
                match groups.last_mut().filter(|(last, _)| *last == part) {
                    Some((_, docs)) => *docs |= found,
                    None => groups.push((part, found)),
                }
                Ok(true)
            })?;
        }
        if source.source.missing_bucket && !rest.is_empty() {
            groups.push((KeyPart::Null, rest));
        }
        groups.sort_by(|a, b| source.compare(&a.0, &b.0));
        Ok(groups)
    }
}
