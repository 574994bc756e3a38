//! Checksums of database pages. Pure.
//!
//! The last [`RESERVED_BYTES`] of a page belong to this module: SQLite leaves them alone. They contain the CRC-32C of the
//! page number and the rest of the page, so a page at a wrong place is damaged too.

/// Size of a page.
pub(in crate::search::sqlite) const PAGE_BYTES: usize = 8_192;

/// Bytes at the end of a page that SQLite does not use.
pub(in crate::search::sqlite) const RESERVED_BYTES: usize = 4;

/// A page of the database.
pub(in crate::search::sqlite) type Page = [u8; PAGE_BYTES];

/// The page that contains byte 2^30 of the file. SQLite locks bytes in it and never uses it.
pub(super) const LOCK_PAGE: u32 = (1 << 30) / PAGE_BYTES as u32 + 1;

/// Writes the checksum of page `number`, counted from 1.
pub(super) fn seal(number: u32, page: &mut Page) {
    let sum = checksum(number, page);
    page[PAGE_BYTES - RESERVED_BYTES..].copy_from_slice(&sum.to_le_bytes());
}

/// Returns whether page `number` has its checksum.
pub(super) fn is_sound(number: u32, page: &Page) -> bool {
    page[PAGE_BYTES - RESERVED_BYTES..] == checksum(number, page).to_le_bytes()
}

fn checksum(number: u32, page: &Page) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &page[..PAGE_BYTES - RESERVED_BYTES])
}

/// Reads a number of a page: 4 bytes, big endian.
pub(in crate::search::sqlite) fn number_at(page: &[u8], at: usize) -> u32 {
    page.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_and_each_other_place_is_seen() {
        let mut page: Page = std::array::from_fn(|at| (at % 251) as u8);
        seal(7, &mut page);
        assert!(is_sound(7, &page) && !is_sound(8, &page));
        for bit in 0..8 * PAGE_BYTES {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_sound(7, &page), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!is_sound(1, &[0; PAGE_BYTES]), "a page of zeros was never written");
    }
}
