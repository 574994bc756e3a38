//! Reads the calls of one source in the order of their IDs: sorts all rows by call, then builds one call at a time. Runs
//! on the main thread. The memory does not depend on the number of rows.

use std::sync::Arc;

use crate::billing::external_sort::{ExternalSorter, SortSettings, SortedRecords};
use crate::billing::input::{RowCounts, RowReader};
use crate::billing::{self, BilledCall, CallBuilder, InvalidRecord, RowTimeParser};
use crate::phone::PhoneNumberNormalizer;
use crate::search::source::{SessionOptions, TimeRange};
use crate::{Error, Result};

/// The input of one side.
pub(crate) struct RowSource<'a> {
    /// Files, directories and URLs. If empty, the store of `options` is read.
    pub names: &'a [String],
    /// The default store, and the range in which a call has to start.
    pub options: &'a SessionOptions,
    pub times: &'a RowTimeParser,
}

/// Iterates over calls by call ID.
pub(crate) struct CallReader {
    sorted: SortedRecords,
    range: TimeRange,
    normalizer: Option<Arc<PhoneNumberNormalizer>>,
    /// The call whose rows are being read.
    current: Option<CallBuilder>,
    pub counts: RowCounts,
}

impl CallReader {
    /// Reads and sorts all rows.
    pub(crate) fn read(source: &RowSource<'_>, sort: &SortSettings) -> Result<CallReader> {
        let mut sorter = ExternalSorter::new(sort);
        let mut record = Vec::new();
        let mut push = |row: billing::BillingRow<'_>| {
            record.clear();
            billing::encode_row(&row, &mut record);
            sorter.push(&record)
        };
        let mut reader = RowReader::new(source.times, &mut push);
        if source.names.is_empty() {
            reader.read_store(source.options)?;
        }
        for name in source.names {
            reader.read(name, source.options)?;
        }
        let counts = reader.counts;
        let sorted = sorter.finish()?;
        if sorted.runs > 0 {
            log::info!("sorted rows={} runs={}", counts.rows, sorted.runs);
        }
        let SessionOptions { range, normalizer, .. } = source.options.clone();
        Ok(CallReader { sorted, range, normalizer, current: None, counts })
    }

    /// Returns the next call by call ID, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<BilledCall>> {
        while let Some(call) = self.next_unfiltered()? {
            let start_ms = call.start_us.div_euclid(1_000);
            let is_in_range = self.range.from_ms.is_none_or(|from_ms| from_ms <= start_ms)
                && self.range.to_ms.is_none_or(|to_ms| start_ms < to_ms);
            if is_in_range {
                return Ok(Some(call));
            }
        }
        Ok(None)
    }

    fn next_unfiltered(&mut self) -> Result<Option<BilledCall>> {
        while let Some(record) = self.sorted.next()? {
            let row = billing::decode_row(record).map_err(record_error)?;
            match &mut self.current {
                Some(builder) if builder.is_same_call(&row) => builder.add(&row),
                current => {
                    if let Some(builder) = current.replace(CallBuilder::new(&row)) {
                        return Ok(Some(self.finish_call(builder)));
                    }
                }
            }
        }
        Ok(self.current.take().map(|builder| self.finish_call(builder)))
    }

    fn finish_call(&self, builder: CallBuilder) -> BilledCall {
        builder.finish(|one, other| match &self.normalizer {
            Some(normalizer) => {
                let numbers = normalizer.normalize(one).zip(normalizer.normalize(other));
                numbers.is_some_and(|(one, other)| one.as_str() == other.as_str())
            }
            None => false,
        })
    }
}

fn record_error(error: InvalidRecord) -> Error {
    Error::System { act: "sort rows", source: std::io::Error::other(error) }
}
