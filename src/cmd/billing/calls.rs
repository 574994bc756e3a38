//! Calls of one source, by their ids, however many: rows sorted by call, then built one call after the other. Main thread.

use std::sync::Arc;

use super::super::asked::{Span, WhereArgs, WhichArgs};
use super::SortArgs;
use super::input::{Counts, Input};
use super::sorter::{Sorted, Sorter};
use crate::iri::billing::{self, BadRecord, Builder, Call, Clock};
use crate::iri::number::Families;
use crate::{Error, Result};

/// Where the rows of one side are.
pub struct Source<'a> {
    /// Files, folders and URLs; none: the place's store.
    pub names: &'a [String],
    /// The place, and the configuration.
    pub place: &'a WhereArgs,
    /// Which rows.
    pub which: &'a WhichArgs,
    /// Which calls, by the time of their begin.
    pub span: Span,
}

/// Calls, one after the other.
pub struct Calls {
    sorted: Sorted,
    span: Span,
    families: Option<Arc<Families>>,
    /// The rows of the next call, as far as they are read.
    begun: Option<Builder>,
    /// What became of the rows.
    pub counts: Counts,
}

impl Calls {
    /// Reads and sorts all rows.
    pub fn read(source: &Source<'_>, sort: &SortArgs, memory: u64) -> Result<Calls> {
        let zone = source.which.time_zone;
        let clock = Clock::new(move |ms| zone.offset_minutes(ms));
        let mut sorter = Sorter::new(&sort.temp_dir(), memory);
        let mut record = Vec::new();
        let mut push = |row: billing::Row<'_>| {
            record.clear();
            billing::encode(&row, &mut record);
            sorter.push(&record)
        };
        let mut input = Input::new(&clock, &mut push);
        if source.names.is_empty() {
            input.store(source.place, source.which)?;
        }
        for name in source.names {
            input.read(name, source.place, source.which)?;
        }
        let counts = input.counts;
        let sorted = sorter.finish()?;
        if sorted.runs > 0 {
            log::info!("sorted rows={} runs={}", counts.rows, sorted.runs);
        }
        let families = source.which.families(source.place)?;
        Ok(Calls { sorted, span: source.span, families, begun: None, counts })
    }

    /// The next call, by its id; none at the end.
    pub fn next(&mut self) -> Result<Option<Call>> {
        while let Some(call) = self.next_of_all()? {
            let start_ms = call.start_us.div_euclid(1_000);
            let is_in = self.span.from_ms.is_none_or(|from_ms| from_ms <= start_ms)
                && self.span.to_ms.is_none_or(|to_ms| start_ms < to_ms);
            if is_in {
                return Ok(Some(call));
            }
        }
        Ok(None)
    }

    fn next_of_all(&mut self) -> Result<Option<Call>> {
        while let Some(record) = self.sorted.next()? {
            let row = billing::decode(record).map_err(damaged)?;
            match &mut self.begun {
                Some(builder) if builder.is_of(&row) => builder.add(&row),
                begun => {
                    if let Some(builder) = begun.replace(Builder::new(&row)) {
                        return Ok(Some(self.finished(builder)));
                    }
                }
            }
        }
        Ok(self.begun.take().map(|builder| self.finished(builder)))
    }

    fn finished(&self, builder: Builder) -> Call {
        builder.finish(|one, other| match &self.families {
            Some(families) => {
                let number = |text| families.canonical(text);
                number(one).zip(number(other)).is_some_and(|(one, other)| one.number() == other.number())
            }
            None => false,
        })
    }
}

fn damaged(error: BadRecord) -> Error {
    Error::System { act: "sort rows", source: std::io::Error::other(error) }
}
