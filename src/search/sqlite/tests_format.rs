//! The example of docs/store-format.md, compared with the file that a store writes.

use rusqlite::types::FromSql;
use serde_json::json;

use super::*;
use crate::search::document::WriteMode;
use crate::search::mapping::{Field, FieldType};

const DOCS: &str = include_str!("../../../docs/store-format.md");

const DOCUMENTS: [&str; 2] = [
    r#"{"time":"2026-11-30T10:00:00Z","agent":"SIP scanner"}"#,
    r#"{"time":"2026-11-30T10:30:00Z","agent":"scanner"}"#,
];

/// Reads the hexadecimal digits of an example. A semicolon starts a comment.
fn example(name: &str) -> Vec<u8> {
    let (_, rest) = DOCS.split_once(&format!("<!-- example: {name} -->\n```text\n")).unwrap();
    let (lines, _) = rest.split_once("```").unwrap();
    let digits = lines.lines().filter_map(|line| line.split(';').next());
    let digits: String = digits.flat_map(str::split_whitespace).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Writes the documents in one call, closes the store and opens its file.
fn write_documents(dir: &Path, young_docs_max: u32) -> Connection {
    let store = SqliteStore::open(dir, StoreConfig { young_docs_max, ..StoreConfig::default() }).unwrap();
    let fields = [("agent", FieldType::Text), ("time", FieldType::Date)];
    let fields = fields.map(|(name, field_type)| (name.to_owned(), Field::of_type(field_type)));
    store.create_index("calls", &Mapping { fields: fields.into(), ..Mapping::default() }).unwrap();
    let document = |source: &str| Document {
        index: "calls".to_owned(),
        doc_type: None,
        id: None,
        mode: WriteMode::Index,
        source: source.as_bytes().into(),
    };
    let written = store.write(DOCUMENTS.map(document).into()).unwrap();
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    drop(store);
    Connection::open(file::path(dir)).unwrap()
}

#[track_caller]
fn check<T: FromSql + PartialEq + std::fmt::Debug>(file: &Connection, sql: &str, expected: T) {
    let value: T = file.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(value, expected, "{sql}");
}

#[test]
fn the_documented_example_has_the_bytes_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_documents(dir.path(), 1_000);
    let young = example("young segment");
    check(&file, "PRAGMA application_id", 0x4c65_6145);
    check(&file, "PRAGMA user_version", 3);
    check(&file, "SELECT next_doc FROM state WHERE length(secret) = 32", 2);
    check(&file, "SELECT id FROM indices WHERE name = 'calls' AND dynamic = 0", 0);
    check(&file, "SELECT id FROM fields WHERE index_id = 0 AND name = 'agent'", 16);
    let definition: String =
        file.query_row("SELECT definition FROM fields WHERE id = 17", [], |row| row.get(0)).unwrap();
    let expected = json!({
        "type": "date", "declared": null, "parent": null, "ignore_above": null, "format": null,
        "ignore_malformed": false, "index": true,
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&definition).unwrap(), expected);
    check(&file, "SELECT data FROM young_segments WHERE base = 0 AND span = 2", young.clone());
    check(&file, "SELECT source FROM documents WHERE doc = 1 AND id IS NULL", example("source"));
    check(&file, "SELECT time_ms FROM documents WHERE doc = 0 AND version IS NULL", 1_796_032_800_000_i64);

    let dir = tempfile::tempdir().unwrap();
    let file = write_documents(dir.path(), 2);
    check(&file, "SELECT count(*) FROM young_segments", 0);
    // The block is the young segment without the length of the block.
    check(&file, "SELECT data FROM blocks WHERE id = 1 << 24", young[2..].to_vec());
    let row = "SELECT fences FROM segments WHERE id = 1 AND base = 0 AND span = 2 AND bytes = 142";
    check(&file, row, example("fences"));
}

#[test]
fn generated_ids_have_the_documented_form() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_documents(dir.path(), 1_000);
    let secret: Vec<u8> = file.query_row("SELECT secret FROM state", [], |row| row.get(0)).unwrap();
    let store = SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap();
    let id = ids::make_id(&secret, 1);
    assert_eq!(id.len(), 20);
    assert_eq!(store.get("calls", &id).unwrap().unwrap().source, DOCUMENTS[1].as_bytes());
}
