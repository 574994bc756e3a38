//! Splits a JSON array into its objects without parsing them. The memory is limited by the length of one object.

use std::io::{self, BufRead};

/// Reads the objects of a JSON array in any layout. Text between objects is skipped.
pub(super) struct JsonArrayReader<R> {
    from: R,
    object: Vec<u8>,
    bytes_max: usize,
}

pub(super) enum ArrayElement<'a> {
    Object(&'a [u8]),
    TooLong,
    /// The file ends within the object.
    Truncated,
}

impl<R: BufRead> JsonArrayReader<R> {
    pub(super) fn new(from: R, bytes_max: usize) -> JsonArrayReader<R> {
        JsonArrayReader { from, object: Vec::new(), bytes_max }
    }

    /// Returns the next object, from its opening to its closing brace.
    pub(super) fn next(&mut self) -> io::Result<Option<ArrayElement<'_>>> {
        self.object.clear();
        let mut scanner = BraceScanner::default();
        let mut is_too_long = false;
        loop {
            let buffer = self.from.fill_buf()?;
            if buffer.is_empty() {
                return Ok((scanner.depth > 0).then_some(ArrayElement::Truncated));
            }
            let (start, end) = scanner.scan(buffer);
            let to = end.unwrap_or(buffer.len());
            let part = &buffer[start.min(to)..to];
            is_too_long |= self.object.len() + part.len() > self.bytes_max;
            if !is_too_long {
                self.object.extend_from_slice(part);
            }
            self.from.consume(to);
            match (end, is_too_long) {
                (None, _) => {}
                (Some(_), true) => return Ok(Some(ArrayElement::TooLong)),
                (Some(_), false) => return Ok(Some(ArrayElement::Object(&self.object))),
            }
        }
    }
}

/// Splits an array into its objects, for fuzzing. `None` stands for an object of more than `bytes_max` bytes. The flag says
/// that the input ends within an object.
pub fn split_objects(from: impl BufRead, bytes_max: usize) -> io::Result<(Vec<Option<Vec<u8>>>, bool)> {
    let mut reader = JsonArrayReader::new(from, bytes_max);
    let mut objects = Vec::new();
    loop {
        match reader.next()? {
            Some(ArrayElement::Object(object)) => objects.push(Some(object.to_vec())),
            Some(ArrayElement::TooLong) => objects.push(None),
            Some(ArrayElement::Truncated) => return Ok((objects, true)),
            None => return Ok((objects, false)),
        }
    }
}

/// Finds the end of an object by counting braces outside of strings.
#[derive(Default)]
struct BraceScanner {
    depth: u64,
    is_in_string: bool,
    is_escaped: bool,
}

impl BraceScanner {
    /// Scans a part of the input. Returns where the object starts in it, and the position after its closing brace.
    fn scan(&mut self, part: &[u8]) -> (usize, Option<usize>) {
        let mut start = if self.depth == 0 { part.len() } else { 0 };
        for (at, byte) in part.iter().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' if self.depth > 0 => self.is_in_string = !self.is_in_string,
                b'{' if !self.is_in_string => {
                    if self.depth == 0 {
                        start = at;
                    }
                    self.depth += 1;
                }
                b'}' if !self.is_in_string && self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (start, Some(at + 1));
                    }
                }
                _ => {}
            }
        }
        (start, None)
    }
}
