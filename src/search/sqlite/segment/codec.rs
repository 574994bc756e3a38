//! Encoding of document numbers and positions. All numbers are LEB128 varints. Pure.
//!
//! Documents are written as runs of consecutive numbers. A run starts with the gap to the document after the previous
//! run, shifted left by one. The low bit is set if the run has more than one document, and then its length minus two
//! follows. The positions of a document are either its only position, shifted left by one, or their number, shifted
//! left by one with the low bit set, followed by the differences between them. Damaged input gives [`CodecError`],
//! never a panic.

/// The bytes are not a valid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodecError;

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a varint at `*at`.
pub(crate) fn take_varint(bytes: &[u8], at: &mut usize) -> Result<u64, CodecError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(CodecError)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(CodecError)
}

/// Reads a varint and as many bytes as it says.
pub(crate) fn take_bytes<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a [u8], CodecError> {
    let length = usize::try_from(take_varint(bytes, at)?).map_err(|_| CodecError)?;
    let end = at.checked_add(length).ok_or(CodecError)?;
    let content = bytes.get(*at..end).ok_or(CodecError)?;
    *at = end;
    Ok(content)
}

/// Appends the length of `bytes` as a varint, and then `bytes`.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Encoder for the documents of a term, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct DocListWriter {
    bytes: Vec<u8>,
    /// Number after the last document in `bytes`.
    next: u32,
    run_from: u32,
    run: u32,
}

impl DocListWriter {
    /// Adds a document.
    pub(crate) fn add(&mut self, doc: u32) {
        self.add_run(doc, 1);
    }

    /// Adds consecutive documents.
    pub(crate) fn add_run(&mut self, from: u32, docs: u32) {
        if self.run > 0 && from == self.run_from + self.run {
            self.run += docs;
            return;
        }
        self.close_run();
        (self.run_from, self.run) = (from, docs);
    }

    fn close_run(&mut self) {
        if self.run == 0 {
            return;
        }
        let gap = u64::from(self.run_from - self.next);
        put_varint(&mut self.bytes, gap << 1 | u64::from(self.run > 1));
        if self.run > 1 {
            put_varint(&mut self.bytes, u64::from(self.run - 2));
        }
        self.next = self.run_from + self.run;
        self.run = 0;
    }

    /// Returns the size of the output, without the current run.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Completes and returns the output. Call [`clear`](Self::clear) before adding documents of another list.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.close_run();
        &self.bytes
    }

    /// Prepares for another list.
    pub(crate) fn clear(&mut self) {
        (self.next, self.run) = (0, 0);
        self.bytes.clear();
    }
}

/// Calls `run` with the first document and the length of each run.
pub(crate) fn each_run(bytes: &[u8], mut run: impl FnMut(u32, u32)) -> Result<(), CodecError> {
    let (mut at, mut next) = (0, 0u32);
    while at < bytes.len() {
        let head = take_varint(bytes, &mut at)?;
        let docs = if head & 1 == 1 { take_varint(bytes, &mut at)? + 2 } else { 1 };
        let from = u32::try_from(head >> 1).ok().and_then(|gap| next.checked_add(gap)).ok_or(CodecError)?;
        let docs = u32::try_from(docs).map_err(|_| CodecError)?;
        next = from.checked_add(docs).ok_or(CodecError)?;
        run(from, docs);
    }
    Ok(())
}

/// Appends the positions of one document, in ascending order.
pub(crate) fn put_positions(out: &mut Vec<u8>, positions: &[u32]) {
    if let [only] = positions {
        return put_varint(out, u64::from(*only) << 1);
    }
    put_varint(out, (positions.len() as u64) << 1 | 1);
    let mut before = 0;
    for &position in positions {
        put_varint(out, u64::from(position - before));
        before = position;
    }
}

/// Reads the positions of one document.
pub(crate) fn take_positions(
    bytes: &[u8],
    at: &mut usize,
    positions: &mut Vec<u32>,
) -> Result<(), CodecError> {
    positions.clear();
    let head = take_varint(bytes, at)?;
    let narrow = |number: u64| u32::try_from(number).map_err(|_| CodecError);
    if head & 1 == 0 {
        positions.push(narrow(head >> 1)?);
        return Ok(());
    }
    let mut position = 0u32;
    for _ in 0..head >> 1 {
        position = position.checked_add(narrow(take_varint(bytes, at)?)?).ok_or(CodecError)?;
        positions.push(position);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_docs(docs: &[u32]) {
        let mut writer = DocListWriter::default();
        docs.iter().for_each(|&doc| writer.add(doc));
        let bytes = writer.finish();
        let mut read = Vec::new();
        each_run(bytes, |from, docs| read.extend(from..from + docs)).unwrap();
        assert_eq!(read, docs);
        for cut in 0..bytes.len() {
            let _ = each_run(&bytes[..cut], |_, _| {});
        }
    }

    #[test]
    fn documents_round_trip() {
        check_docs(&[]);
        check_docs(&[0]);
        check_docs(&[0, 1, 2, 3]);
        check_docs(&[5, 7, 8, 1000, 1001, 70_000, u32::MAX - 1]);
    }

    #[test]
    fn a_run_of_a_million_documents_takes_four_bytes() {
        let mut writer = DocListWriter::default();
        (0..1_000_000).for_each(|doc| writer.add(doc));
        assert_eq!(writer.finish().len(), 4);
    }

    #[test]
    fn positions_round_trip() {
        for positions in [&[0][..], &[7], &[], &[0, 1, 105], &[u32::MAX]] {
            let mut bytes = Vec::new();
            put_positions(&mut bytes, positions);
            let (mut at, mut read) = (0, Vec::new());
            take_positions(&bytes, &mut at, &mut read).unwrap();
            assert_eq!((&read[..], at), (positions, bytes.len()));
        }
    }

    #[test]
    fn damaged_bytes_are_rejected() {
        assert_eq!(each_run(&[0x80; 12], |_, _| {}), Err(CodecError));
        assert_eq!(take_bytes(&[5, 1, 2], &mut 0), Err(CodecError));
        assert_eq!(take_positions(&[5, 1], &mut 0, &mut Vec::new()), Err(CodecError));
    }
}
