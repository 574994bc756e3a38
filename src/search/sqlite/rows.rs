//! Reading and writing of the rows of small tables.

use std::collections::HashSet;
use std::sync::Arc;

use roaring::RoaringBitmap;
use rusqlite::{Connection, OptionalExtension, Result, params};
use serde_json::{Value, json};

use super::catalog::{Catalog, CatalogChange, field_ids};
use super::compress::SourceCodec;
use super::ids;
use super::schema::block_id;
use super::segment::{CodecError, IndexSegment};
use crate::search::mapping::{Dynamic, Field, FieldType, MappingRules};

const TYPES: [FieldType; 8] = [
    FieldType::Text,
    FieldType::Keyword,
    FieldType::Long,
    FieldType::Double,
    FieldType::Boolean,
    FieldType::Date,
    FieldType::Ip,
    FieldType::GeoPoint,
];

/// Writes additions to the catalog.
pub(super) fn write_catalog_changes(connection: &Connection, changes: &[CatalogChange]) -> Result<()> {
    for change in changes {
        match change {
            CatalogChange::Index { id, name, dynamic } => connection
                .prepare_cached("INSERT OR REPLACE INTO indices VALUES (?1, ?2, ?3)")?
                .execute(params![id, name, *dynamic as i64])?,
            CatalogChange::Rules { index, rules } => connection
                .prepare_cached("INSERT OR REPLACE INTO fields VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![index, field_ids::RULES, "", rules.to_text()])?,
            CatalogChange::Field { index, id, name, field } => connection
                .prepare_cached("INSERT OR REPLACE INTO fields VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![index, id, name, field_to_json(field)])?,
        };
    }
    Ok(())
}

fn field_to_json(field: &Field) -> String {
    json!({
        "type": field.field_type.name(), "declared": field.declared_type, "parent": field.parent,
        "ignore_above": field.ignore_above, "format": field.format, "ignore_malformed": field.ignore_malformed,
        "index": field.is_searchable,
    })
    .to_string()
}

fn field_from_json(text: &str) -> Option<Field> {
    let value: Value = serde_json::from_str(text).ok()?;
    let text_of = |key: &str| value[key].as_str().map(str::to_owned);
    let name = text_of("type")?;
    Some(Field {
        field_type: TYPES.into_iter().find(|kind| kind.name() == name)?,
        declared_type: text_of("declared"),
        parent: text_of("parent"),
        ignore_above: value["ignore_above"].as_u64().and_then(|chars| usize::try_from(chars).ok()),
        format: text_of("format"),
        ignore_malformed: value["ignore_malformed"].as_bool().unwrap_or_default(),
        is_searchable: value["index"].as_bool().unwrap_or(true),
    })
}

/// Reads indices and fields that the catalog does not have yet, and removes those that were deleted.
pub(super) fn read_catalog(connection: &Connection, catalog: &Catalog) -> Result<()> {
    let mut found = HashSet::new();
    let mut statement = connection.prepare_cached("SELECT id, name, dynamic FROM indices")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name, dynamic): (u16, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let dynamic = [Dynamic::True, Dynamic::False, Dynamic::Strict]
            .into_iter()
            .find(|&kind| kind as i64 == dynamic)
            .unwrap_or_default();
        let known = catalog.get(&name).filter(|known| known.id == id);
        let index = known.unwrap_or_else(|| catalog.load_index(id, &name, dynamic));
        found.insert(name);
        let mut fields =
            connection.prepare_cached("SELECT id, name, definition FROM fields WHERE index_id = ?1")?;
        let mut fields = fields.query([id])?;
        while let Some(row) = fields.next()? {
            let (id, name, text): (u16, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if id == field_ids::RULES {
                catalog.load_rules(&index, MappingRules::from_text(&text));
                continue;
            }
            if let Some(field) = field_from_json(&text).filter(|_| index.fields().get(&name).is_none()) {
                catalog.load_field(&index, id, &name, field);
            }
        }
    }
    catalog.retain(&found);
    Ok(())
}

/// Reads dictionaries that the codec does not have yet.
pub(super) fn read_dictionaries(connection: &Connection, sources: &SourceCodec) -> Result<()> {
    let mut statement =
        connection.prepare_cached("SELECT data FROM dictionaries WHERE id > ?1 ORDER BY id")?;
    let mut rows = statement.query([sources.dictionary_count()])?;
    while let Some(row) = rows.next()? {
        sources.add_dictionary(row.get_ref(0)?.as_blob()?);
    }
    Ok(())
}

/// Reads all segments in the order of their documents. Segments in `known` are reused.
pub(super) fn read_segments(
    connection: &Connection,
    known: &[Arc<IndexSegment>],
) -> Result<Vec<Arc<IndexSegment>>> {
    let mut segments = Vec::new();
    let of_disk =
        |id: u64, base: u32| known.iter().find(|known| known.id == id && known.base == base).cloned();
    let damaged = |_: CodecError| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        rusqlite::Error::SqliteFailure(code, Some("damaged row of a segment".to_owned()))
    };
    let mut statement =
        connection.prepare_cached("SELECT id, base, span, bytes, fences FROM segments ORDER BY base")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, base) = (row.get(0)?, row.get(1)?);
        segments.push(match of_disk(id, base) {
            Some(known) => known,
            None => {
                let fences = row.get_ref(4)?.as_blob()?;
                Arc::new(IndexSegment::from_row(id, base, row.get(2)?, row.get(3)?, fences).map_err(damaged)?)
            }
        });
    }
    let mut statement =
        connection.prepare_cached("SELECT base, span, data FROM young_segments ORDER BY base")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (base, span) = (row.get(0)?, row.get(1)?);
        let same = |known: &&Arc<IndexSegment>| known.id == 0 && known.base == base && known.span == span;
        segments.push(match known.iter().find(same) {
            Some(known) => Arc::clone(known),
            None => Arc::new(IndexSegment::unpack(base, span, row.get_ref(2)?.as_blob()?).map_err(damaged)?),
        });
    }
    Ok(segments)
}

/// Reads the set of deleted documents.
pub(super) fn read_deleted_docs(connection: &Connection) -> Result<RoaringBitmap> {
    let mut statement = connection.prepare_cached("SELECT doc FROM deleted_docs ORDER BY doc")?;
    let mut deleted_docs = RoaringBitmap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        deleted_docs.insert(row.get(0)?);
    }
    Ok(deleted_docs)
}

/// Removes an index from the catalog.
pub(super) fn delete_index(connection: &Connection, index: u16) -> Result<()> {
    connection.execute("DELETE FROM fields WHERE index_id = ?1", [index])?;
    connection.execute("DELETE FROM indices WHERE id = ?1", [index])?;
    Ok(())
}

/// Returns the index of a document, and its id if the sender chose one. `None` if it has no row.
pub(super) fn id_of_doc(connection: &Connection, doc: u32) -> Result<Option<(u16, Option<String>)>> {
    connection
        .prepare_cached("SELECT index_id, id FROM documents WHERE doc = ?1")?
        .query_row([doc], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Removes an id, if it is that of the document.
pub(super) fn delete_id(connection: &Connection, index: u16, id: &str, doc: u32) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM ids WHERE index_id = ?1 AND id = ?2 AND doc = ?3")?
        .execute(params![index, id, doc])?;
    Ok(())
}

/// A number that changes with each commit that concerns readers; never 0.
pub(super) type ChangeMark = u64;

/// Reads the change mark of the state that the connection sees.
pub(super) fn read_change_mark(connection: &Connection) -> Result<ChangeMark> {
    connection.prepare_cached("SELECT 1 + commits FROM state")?.query_row([], |row| row.get(0))
}

/// Reads the number of the next document, and the secret of the ids that the store makes.
pub(super) fn read_state(connection: &Connection) -> Result<(u32, Vec<u8>)> {
    connection.query_row("SELECT next_doc, secret FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Returns the document with an id that a sender chose.
pub(super) fn doc_of_id(connection: &Connection, index: u16, id: &str) -> Result<Option<u32>> {
    connection
        .prepare_cached("SELECT doc FROM ids WHERE index_id = ?1 AND id = ?2")?
        .query_row(params![index, id], |row| row.get(0))
        .optional()
}

/// Row of a document.
#[derive(Debug)]
pub(super) struct DocumentRow {
    pub index: u16,
    /// The id, if the sender chose one.
    pub id: Option<String>,
    /// Counted from 1.
    pub version: u64,
    pub doc_type: Option<String>,
    pub time_ms: i64,
    /// The source in its stored form.
    pub source: Vec<u8>,
}

/// Reads the row of a document.
pub(super) fn read_document(connection: &Connection, doc: u32) -> Result<Option<DocumentRow>> {
    connection
        .prepare_cached("SELECT index_id, id, version, type, time_ms, source FROM documents WHERE doc = ?1")?
        .query_row([doc], |row| {
            Ok(DocumentRow {
                index: row.get(0)?,
                id: row.get(1)?,
                version: row.get::<_, Option<u64>>(2)?.unwrap_or(1),
                doc_type: row.get(3)?,
                time_ms: row.get(4)?,
                source: row.get(5)?,
            })
        })
        .optional()
}

/// Returns the document with an id and its version, if it is not deleted.
pub(super) fn find_by_id(
    connection: &Connection,
    secret: &[u8],
    index: u16,
    id: &str,
    counts: impl Fn(u32) -> bool,
) -> Result<Option<(u32, u64)>> {
    let chosen = doc_of_id(connection, index, id)?;
    let generated = || ids::doc_of_made_id(secret, id).filter(|&doc| counts(doc));
    let Some(doc) = chosen.or_else(generated) else { return Ok(None) };
    let row = read_document(connection, doc)?.filter(|row| row.index == index);
    Ok(row.filter(|row| chosen.is_some() || row.id.is_none()).map(|row| (doc, row.version)))
}

/// Deletes blocks without a segment, and returns the next segment number.
pub(super) fn delete_orphan_blocks(connection: &Connection) -> Result<u64> {
    let mut known = connection.prepare("SELECT id FROM segments ORDER BY id")?;
    let known = known.query_map([], |row| row.get::<_, u64>(0))?.collect::<Result<Vec<_>>>()?;
    let mut from = 0;
    for &id in &known {
        connection
            .execute("DELETE FROM blocks WHERE id >= ?1 AND id < ?2", [block_id(from, 0), block_id(id, 0)])?;
        from = id + 1;
    }
    connection.execute("DELETE FROM blocks WHERE id >= ?1", [block_id(from, 0)])?;
    Ok(from.max(1))
}
