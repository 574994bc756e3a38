//! Ids of documents that were sent without one. Pure.
//!
//! An id contains the document number, so it needs no table. It also contains a tag keyed with the secret of the
//! store, so an id chosen by a sender is not mistaken for one of these.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Length of a made id in characters.
const ID_CHARS: usize = 20;
const TAG_BYTES: usize = 11;

/// Returns the id of a document that was sent without one.
pub(super) fn make_id(secret: &[u8], doc: u32) -> String {
    let tag = tag(secret, doc);
    let mut bytes = [0; TAG_BYTES + 4];
    bytes[..TAG_BYTES].copy_from_slice(&tag);
    bytes[TAG_BYTES..].copy_from_slice(&doc.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the document number in an id that this store made.
pub(super) fn doc_of_made_id(secret: &[u8], id: &str) -> Option<u32> {
    if id.len() != ID_CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    let (found_tag, doc) = bytes.split_at_checked(TAG_BYTES)?;
    let doc = u32::from_be_bytes(doc.try_into().ok()?);
    (tag(secret, doc) == found_tag).then_some(doc)
}

fn tag(secret: &[u8], doc: u32) -> [u8; TAG_BYTES] {
    let digest = Sha256::new().chain_update(secret).chain_update(doc.to_be_bytes()).finalize();
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&digest[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_this_store_yield_a_document() {
        for doc in [0, 1, 5_000_000, u32::MAX] {
            let id = make_id(b"secret", doc);
            assert_eq!((id.len(), doc_of_made_id(b"secret", &id)), (ID_CHARS, Some(doc)));
            assert_eq!(doc_of_made_id(b"other", &id), None);
            assert_eq!(doc_of_made_id(b"secret", &id[1..]), None);
            assert_eq!(
                doc_of_made_id(b"secret", &format!("A{}", &id[1..])).filter(|_| !id.starts_with('A')),
                None
            );
        }
        assert_eq!(doc_of_made_id(b"secret", "AAAAAAAAAAAAAAAAAAAA"), None);
        assert_eq!(doc_of_made_id(b"secret", "äääääääääääääääääääää"), None);
    }
}
