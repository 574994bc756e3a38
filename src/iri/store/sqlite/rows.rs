//! Rows of the small tables, both ways.

use std::sync::Arc;

use roaring::RoaringBitmap;
use rusqlite::{Connection, OptionalExtension, Result, params};
use serde_json::{Value, json};

use super::catalogue::{Catalogue, Change};
use super::compress::Sources;
use super::segment::{Damaged, Segment};
use crate::iri::mapping::{Dynamic, Field, FieldType};

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

/// Writes what is new in the catalogue.
pub fn write_changes(connection: &Connection, changes: &[Change]) -> Result<()> {
    for change in changes {
        match change {
            Change::Index { no, name, dynamic } => connection
                .prepare_cached("INSERT OR REPLACE INTO indices VALUES (?1, ?2, ?3)")?
                .execute(params![no, name, *dynamic as i64])?,
            Change::Field { index, no, name, field } => connection
                .prepare_cached("INSERT OR REPLACE INTO fields VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![index, no, name, field_text(field)])?,
        };
    }
    Ok(())
}

fn field_text(field: &Field) -> String {
    json!({
        "type": field.kind.name(), "declared": field.declared, "parent": field.parent,
        "ignore_above": field.ignore_above, "format": field.format, "ignore_malformed": field.ignore_malformed,
    })
    .to_string()
}

fn field_of(text: &str) -> Option<Field> {
    let value: Value = serde_json::from_str(text).ok()?;
    let word = |key: &str| value[key].as_str().map(str::to_owned);
    let name = word("type")?;
    Some(Field {
        kind: TYPES.into_iter().find(|kind| kind.name() == name)?,
        declared: word("declared"),
        parent: word("parent"),
        ignore_above: value["ignore_above"].as_u64().and_then(|chars| usize::try_from(chars).ok()),
        format: word("format"),
        ignore_malformed: value["ignore_malformed"].as_bool().unwrap_or_default(),
    })
}

/// Reads indices and fields that the catalogue does not have yet.
pub fn read_catalogue(connection: &Connection, catalogue: &Catalogue) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT no, name, dynamic FROM indices")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (no, name, dynamic): (u16, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let dynamic = [Dynamic::True, Dynamic::False, Dynamic::Strict]
            .into_iter()
            .find(|&kind| kind as i64 == dynamic)
            .unwrap_or_default();
        let index = catalogue.get(&name).unwrap_or_else(|| catalogue.load_index(no, &name, dynamic));
        let mut fields =
            connection.prepare_cached("SELECT no, name, field FROM fields WHERE index_no = ?1")?;
        let mut fields = fields.query([no])?;
        while let Some(row) = fields.next()? {
            let (no, name, text): (u16, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if let Some(field) = field_of(&text).filter(|_| index.fields().get(&name).is_none()) {
                catalogue.load_field(&index, no, &name, field);
            }
        }
    }
    Ok(())
}

/// Reads dictionaries that are not there yet.
pub fn read_dictionaries(connection: &Connection, sources: &Sources) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT data FROM dictionary WHERE no > ?1 ORDER BY no")?;
    let mut rows = statement.query([sources.dictionaries()])?;
    while let Some(row) = rows.next()? {
        sources.add_dictionary(row.get_ref(0)?.as_blob()?);
    }
    Ok(())
}

/// All segments in the order of their documents; those of `known` are taken from there.
pub fn read_segments(connection: &Connection, known: &[Arc<Segment>]) -> Result<Vec<Arc<Segment>>> {
    let mut segments = Vec::new();
    let of_disk =
        |id: u64, base: u32| known.iter().find(|known| known.id == id && known.base == base).cloned();
    let damaged = |_: Damaged| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        rusqlite::Error::SqliteFailure(code, Some("a segment's row makes no sense".to_owned()))
    };
    let mut statement =
        connection.prepare_cached("SELECT id, base, span, bytes, fences FROM segment ORDER BY base")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, base) = (row.get(0)?, row.get(1)?);
        segments.push(match of_disk(id, base) {
            Some(known) => known,
            None => {
                let fences = row.get_ref(4)?.as_blob()?;
                Arc::new(Segment::on_disk(id, base, row.get(2)?, row.get(3)?, fences).map_err(damaged)?)
            }
        });
    }
    let mut statement = connection.prepare_cached("SELECT base, span, data FROM recent ORDER BY base")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (base, span) = (row.get(0)?, row.get(1)?);
        let same = |known: &&Arc<Segment>| known.id == 0 && known.base == base && known.span == span;
        segments.push(match known.iter().find(same) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Segment::unpack(base, span, row.get_ref(2)?.as_blob()?).map_err(damaged)?),
        });
    }
    Ok(segments)
}

/// Documents that count no more.
pub fn read_gone(connection: &Connection) -> Result<RoaringBitmap> {
    let mut statement = connection.prepare_cached("SELECT doc FROM gone ORDER BY doc")?;
    let mut gone = RoaringBitmap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        gone.insert(row.get(0)?);
    }
    Ok(gone)
}

/// What changes with each commit that a reader must know of.
pub type Mark = [u64; 6];

/// The mark of the state that the connection sees.
pub fn read_mark(connection: &Connection) -> Result<Mark> {
    let sql = "SELECT 1 + next_doc, (SELECT count(*) FROM indices), (SELECT count(*) FROM fields),
        (SELECT coalesce(max(id), 0) FROM segment), (SELECT coalesce(max(no), 0) FROM dictionary),
        (SELECT count(*) FROM gone) FROM state";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let mut mark = Mark::default();
        for (at, number) in mark.iter_mut().enumerate() {
            *number = row.get(at)?;
        }
        Ok(mark)
    })
}

/// The next document's number and the secret of ids.
pub fn read_state(connection: &Connection) -> Result<(u32, Vec<u8>)> {
    connection.query_row("SELECT next_doc, secret FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The document that a given id stands for.
pub fn doc_of_id(connection: &Connection, index: u16, id: &str) -> Result<Option<u32>> {
    connection
        .prepare_cached("SELECT doc FROM ids WHERE index_no = ?1 AND id = ?2")?
        .query_row(params![index, id], |row| row.get(0))
        .optional()
}

/// What a document's row says beside its source.
#[derive(Debug)]
pub struct Row {
    /// Its index.
    pub index: u16,
    /// The id, where it was given.
    pub id: Option<String>,
    /// From 1.
    pub version: u64,
    /// Its type.
    pub kind: Option<String>,
    /// Its time.
    pub time_ms: i64,
    /// The source as it is kept.
    pub source: Vec<u8>,
}

/// A document's row.
pub fn read_document(connection: &Connection, doc: u32) -> Result<Option<Row>> {
    connection
        .prepare_cached("SELECT index_no, id, version, kind, time_ms, source FROM documents WHERE doc = ?1")?
        .query_row([doc], |row| {
            Ok(Row {
                index: row.get(0)?,
                id: row.get(1)?,
                version: row.get::<_, Option<u64>>(2)?.unwrap_or(1),
                kind: row.get(3)?,
                time_ms: row.get(4)?,
                source: row.get(5)?,
            })
        })
        .optional()
}
