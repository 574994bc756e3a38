//! Pure: ids that the store makes. They say the document's number, so they need no table; and a tag keyed with the
//! store's secret, so that no id which somebody gives is taken for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Characters of an id that the store made.
const CHARS: usize = 20;
const TAG_BYTES: usize = 11;

/// The id of a document to which none was given.
pub fn make(secret: &[u8], doc: u32) -> String {
    let tag = tag(secret, doc);
    let mut bytes = [0; TAG_BYTES + 4];
    bytes[..TAG_BYTES].copy_from_slice(&tag);
    bytes[TAG_BYTES..].copy_from_slice(&doc.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The document's number, where the store made this id.
pub fn read(secret: &[u8], id: &str) -> Option<u32> {
    if id.len() != CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    let (given, doc) = bytes.split_at_checked(TAG_BYTES)?;
    let doc = u32::from_be_bytes(doc.try_into().ok()?);
    (tag(secret, doc) == given).then_some(doc)
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
    fn ids_say_their_document_and_nothing_else_does() {
        for doc in [0, 1, 5_000_000, u32::MAX] {
            let id = make(b"secret", doc);
            assert_eq!((id.len(), read(b"secret", &id)), (CHARS, Some(doc)));
            assert_eq!(read(b"other", &id), None);
            assert_eq!(read(b"secret", &id[1..]), None);
            assert_eq!(read(b"secret", &format!("A{}", &id[1..])).filter(|_| !id.starts_with('A')), None);
        }
        assert_eq!(read(b"secret", "AAAAAAAAAAAAAAAAAAAA"), None);
        assert_eq!(read(b"secret", "äääääääääääääääääääää"), None);
    }
}
