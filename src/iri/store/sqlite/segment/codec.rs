//! Pure: how a term's documents and positions are written. Numbers are LEB128.
//!
//! Documents: for each run of consecutive numbers the gap to the number after the last one, shifted left by one, the low
//! bit set where the run is longer than one; then its length less two. Positions: for each document either its only
//! position shifted left by one, or how many there are, shifted and the low bit set, and then the steps from one to the
//! next. What is read comes from our own file; a damaged one gives [`Damaged`], never a panic.

/// The bytes of a segment make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Appends a number.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number at `*at`.
pub fn take(bytes: &[u8], at: &mut usize) -> Result<u64, Damaged> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(Damaged)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

/// Reads as many bytes as the number before them says.
pub fn take_bytes<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a [u8], Damaged> {
    let length = usize::try_from(take(bytes, at)?).map_err(|_| Damaged)?;
    let end = at.checked_add(length).ok_or(Damaged)?;
    let taken = bytes.get(*at..end).ok_or(Damaged)?;
    *at = end;
    Ok(taken)
}

/// Appends bytes behind their number.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes the documents of a term, in rising order.
#[derive(Debug, Default)]
pub struct DocsWriter {
    bytes: Vec<u8>,
    /// The number after the last document that is in `bytes`.
    next: u32,
    run_from: u32,
    run: u32,
}

impl DocsWriter {
    /// Adds a document.
    pub fn add(&mut self, doc: u32) {
        self.add_run(doc, 1);
    }

    /// Adds consecutive documents.
    pub fn add_run(&mut self, from: u32, docs: u32) {
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
        put(&mut self.bytes, gap << 1 | u64::from(self.run > 1));
        if self.run > 1 {
            put(&mut self.bytes, u64::from(self.run - 2));
        }
        self.next = self.run_from + self.run;
        self.run = 0;
    }

    /// Bytes so far, without the last run.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes; what is added behind them belongs to other documents' bytes: [`clear`](Self::clear) comes before.
    pub fn close(&mut self) -> &[u8] {
        self.close_run();
        &self.bytes
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        (self.next, self.run) = (0, 0);
        self.bytes.clear();
    }
}

/// Calls `run` with each run of documents: the first, and how many.
pub fn each_run(bytes: &[u8], mut run: impl FnMut(u32, u32)) -> Result<(), Damaged> {
    let (mut at, mut next) = (0, 0u32);
    while at < bytes.len() {
        let head = take(bytes, &mut at)?;
        let docs = if head & 1 == 1 { take(bytes, &mut at)? + 2 } else { 1 };
        let from = u32::try_from(head >> 1).ok().and_then(|gap| next.checked_add(gap)).ok_or(Damaged)?;
        let docs = u32::try_from(docs).map_err(|_| Damaged)?;
        next = from.checked_add(docs).ok_or(Damaged)?;
        run(from, docs);
    }
    Ok(())
}

/// Appends one document's positions, which rise.
pub fn put_positions(out: &mut Vec<u8>, positions: &[u32]) {
    if let [only] = positions {
        return put(out, u64::from(*only) << 1);
    }
    put(out, (positions.len() as u64) << 1 | 1);
    let mut before = 0;
    for &position in positions {
        put(out, u64::from(position - before));
        before = position;
    }
}

/// Reads one document's positions.
pub fn take_positions(bytes: &[u8], at: &mut usize, positions: &mut Vec<u32>) -> Result<(), Damaged> {
    positions.clear();
    let head = take(bytes, at)?;
    let narrow = |number: u64| u32::try_from(number).map_err(|_| Damaged);
    if head & 1 == 0 {
        positions.push(narrow(head >> 1)?);
        return Ok(());
    }
    let mut position = 0u32;
    for _ in 0..head >> 1 {
        position = position.checked_add(narrow(take(bytes, at)?)?).ok_or(Damaged)?;
        positions.push(position);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_docs(docs: &[u32]) {
        let mut writer = DocsWriter::default();
        docs.iter().for_each(|&doc| writer.add(doc));
        let bytes = writer.close();
        let mut read = Vec::new();
        each_run(bytes, |from, docs| read.extend(from..from + docs)).unwrap();
        assert_eq!(read, docs);
        for cut in 0..bytes.len() {
            let _ = each_run(&bytes[..cut], |_, _| {});
        }
    }

    #[test]
    fn documents_come_back() {
        check_docs(&[]);
        check_docs(&[0]);
        check_docs(&[0, 1, 2, 3]);
        check_docs(&[5, 7, 8, 1000, 1001, 70_000, u32::MAX - 1]);
    }

    #[test]
    fn dense_documents_take_two_bytes_and_a_length() {
        let mut writer = DocsWriter::default();
        (0..1_000_000).for_each(|doc| writer.add(doc));
        assert_eq!(writer.close().len(), 4);
    }

    #[test]
    fn positions_come_back() {
        for positions in [&[0][..], &[7], &[], &[0, 1, 105], &[u32::MAX]] {
            let mut bytes = Vec::new();
            put_positions(&mut bytes, positions);
            let (mut at, mut read) = (0, Vec::new());
            take_positions(&bytes, &mut at, &mut read).unwrap();
            assert_eq!((&read[..], at), (positions, bytes.len()));
        }
    }

    #[test]
    fn damaged_bytes_are_told() {
        assert_eq!(each_run(&[0x80; 12], |_, _| {}), Err(Damaged));
        assert_eq!(take_bytes(&[5, 1, 2], &mut 0), Err(Damaged));
        assert_eq!(take_positions(&[5, 1], &mut 0, &mut Vec::new()), Err(Damaged));
    }
}
