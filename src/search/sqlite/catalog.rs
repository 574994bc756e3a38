//! In-memory registry of indices and their fields, used to index documents and to plan queries.
//!
//! A caller's thread adds indices and fields immediately. The thread `store` writes them to the database in the next
//! commit, together with or before the documents that need them. After a failed commit they are written with the next
//! one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::search::date::DateFormat;
use crate::search::mapping::{Dynamic, FIELDS_MAX, Field, FieldType, Mapping, MappingRules};
use crate::search::query::canonical_numbers::{ALL_NUMBERS_FIELD, NUMBER_SUFFIX};

/// Maximum number of indices of a store: a query without index names searches them all.
pub(super) const INDICES_MAX: usize = 10_000;

/// Field ids that exist in every index.
pub(super) mod field_ids {
    /// All documents.
    pub(crate) const ALL: u16 = 0;
    /// Documents that have a field. The value is the id of that field.
    pub(crate) const EXISTS: u16 = 1;
    /// The hidden field `_event_time`.
    pub(crate) const EVENT_TIME: u16 = 2;
    /// The hidden field `_number`.
    pub(crate) const ALL_NUMBERS: u16 = 3;
    /// The document type, if the sender gave one.
    pub(crate) const DOC_TYPE: u16 = 4;
    /// Members that could not be indexed. The value is the member's path.
    pub(crate) const IGNORED: u16 = 5;
    /// Row of the table `fields` that has the rules of the mapping.
    pub(crate) const RULES: u16 = 6;
    /// First id of the fields in a mapping.
    pub(crate) const FIRST: u16 = 16;
    /// Bit that marks the hours of a date field.
    pub(crate) const HOURS: u16 = 0x8000;
}

pub(super) use crate::search::store::EVENT_TIME;

/// Returns the type of a hidden field `F._number`.
pub(super) fn canonical_field() -> Field {
    Field { declared_type: Some(ALL_NUMBERS_FIELD.to_owned()), ..Field::of_type(FieldType::Keyword) }
}

/// A field of an index.
#[derive(Clone, Debug)]
pub(super) struct FieldEntry {
    pub id: u16,
    /// Full name, with dots.
    pub name: String,
    pub field: Field,
    /// Names of the fields that index the same values in another way.
    pub sub_fields: Vec<String>,
    /// Id of the hidden field with the canonical numbers of this field.
    pub canonical_id: Option<u16>,
    /// Parsed `format` of the mapping.
    pub date_format: Option<Arc<DateFormat>>,
}

/// The fields of one index.
#[derive(Clone, Debug)]
pub(super) struct IndexFields {
    /// Treatment of fields that are not in the mapping.
    pub dynamic: Dynamic,
    pub rules: MappingRules,
    by_name: BTreeMap<String, FieldEntry>,
    next_id: u16,
}

impl Default for IndexFields {
    fn default() -> IndexFields {
        let mut fields = IndexFields {
            dynamic: Dynamic::default(),
            rules: MappingRules::default(),
            by_name: BTreeMap::new(),
            next_id: field_ids::FIRST,
        };
        fields.insert(EVENT_TIME, Field::of_type(FieldType::Date), Some(field_ids::EVENT_TIME));
        fields.insert(ALL_NUMBERS_FIELD, canonical_field(), Some(field_ids::ALL_NUMBERS));
        fields
    }
}

impl IndexFields {
    /// Returns the field of that name. Hidden fields are included.
    pub(super) fn get(&self, name: &str) -> Option<&FieldEntry> {
        self.by_name.get(name)
    }

    /// Returns all fields sorted by name. Hidden fields are included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &FieldEntry)> {
        self.by_name.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Tells whether a field has a name that starts with `path` and a dot, and is not a sub-field of `path`.
    pub(super) fn has_below(&self, path: &str) -> bool {
        let below = format!("{path}.");
        let mut fields = self.by_name.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
        fields.any(|(name, entry)| entry.field.parent.is_none() && !is_hidden(name))
    }

    /// Returns the mapping, without hidden fields.
    pub(super) fn mapping(&self) -> Mapping {
        let visible = self.iter().filter(|(name, _)| !is_hidden(name));
        let fields = visible.map(|(name, entry)| (name.to_owned(), entry.field.clone())).collect();
        Mapping { dynamic: self.dynamic, fields, rules: self.rules.clone() }
    }

    /// Adds a field, with the given id or the next one.
    fn insert(&mut self, name: &str, field: Field, id: Option<u16>) -> u16 {
        let id = id.unwrap_or(self.next_id);
        self.next_id = self.next_id.max(id + 1);
        if let Some(parent) = field.parent.as_deref().and_then(|parent| self.by_name.get_mut(parent)) {
            parent.sub_fields.push(name.to_owned());
        }
        let of_number = name.strip_suffix(NUMBER_SUFFIX).and_then(|of| self.by_name.get_mut(of));
        if let Some(of) = of_number {
            of.canonical_id = Some(id);
        }
        let sub_fields = self.iter().filter(|(_, sub)| sub.field.parent.as_deref() == Some(name));
        let sub_fields = sub_fields.map(|(name, _)| name.to_owned()).collect();
        // The mapping parser has checked the format.
        let date_format =
            field.format.as_deref().and_then(|format| DateFormat::parse(format).ok()).map(Arc::new);
        let canonical = self.by_name.get(&format!("{name}{NUMBER_SUFFIX}")).map(|canonical| canonical.id);
        self.by_name.insert(
            name.to_owned(),
            FieldEntry { id, name: name.to_owned(), field, sub_fields, canonical_id: canonical, date_format },
        );
        id
    }
}

/// Tells whether the store itself creates the field.
pub(super) fn is_hidden(name: &str) -> bool {
    name == EVENT_TIME || name == ALL_NUMBERS_FIELD || name.ends_with(NUMBER_SUFFIX)
}

/// An index and its fields.
#[derive(Debug)]
pub(super) struct IndexEntry {
    pub id: u16,
    pub name: String,
    fields: RwLock<Arc<IndexFields>>,
}

impl IndexEntry {
    /// Returns the current fields.
    pub(super) fn fields(&self) -> Arc<IndexFields> {
        Arc::clone(&self.fields.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Addition that is not in the database yet.
#[derive(Clone, Debug)]
pub(super) enum CatalogChange {
    /// An index that is new or whose `dynamic` changed.
    Index { id: u16, name: String, dynamic: Dynamic },
    /// The rules of an index changed.
    Rules { index: u16, rules: MappingRules },
    /// A new field.
    Field {
        index: u16,
        id: u16,
        /// Full name, with dots.
        name: String,
        field: Field,
    },
}

/// Reason why fields cannot be added to a mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MappingConflict {
    /// The field exists with another type.
    #[error("mapper [{name}] cannot be changed from type [{from}] to [{to}]")]
    Type {
        name: String,
        /// Current type.
        from: String,
        /// Requested type.
        to: String,
    },
    #[error("Limit of total fields [{FIELDS_MAX}] has been exceeded")]
    Fields,
    #[error("field name [{0}] is reserved")]
    ReservedName(String),
    /// A field with a value cannot have sub-objects.
    #[error("can't merge a non object mapping [{0}] with an object mapping")]
    ObjectOverValue(String),
}

/// All indices of a store.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    by_name: RwLock<BTreeMap<String, Arc<IndexEntry>>>,
    by_id: Mutex<HashMap<u16, Arc<IndexEntry>>>,
    changes: Mutex<Vec<CatalogChange>>,
    /// Ids of indices that were deleted since the start.
    removed: Mutex<HashSet<u16>>,
    /// Held while an index or a field is added, so that each id is used once.
    add_lock: Mutex<()>,
}

impl Catalog {
    pub(super) fn get(&self, name: &str) -> Option<Arc<IndexEntry>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns all indices sorted by name.
    pub(super) fn all(&self) -> Vec<Arc<IndexEntry>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn index_by_id(&self, id: u16) -> Option<Arc<IndexEntry>> {
        lock(&self.by_id).get(&id).cloned()
    }

    /// Creates an index with these fields, or returns the existing one. The flag is true if the index is new. Returns
    /// `None` if the store has the most indices already; there is always room for the service's own ones.
    pub(super) fn create(
        &self,
        name: &str,
        mapping: &Mapping,
        is_own: bool,
    ) -> Option<(Arc<IndexEntry>, bool)> {
        let _adding = lock(&self.add_lock);
        if let Some(existing) = self.get(name) {
            return Some((existing, false));
        }
        let count = self.by_name.read().unwrap_or_else(PoisonError::into_inner).len();
        if count >= INDICES_MAX && !is_own {
            return None;
        }
        // The id of an index that was deleted is not used again: events for it may be on their way to the writer.
        let removed = lock(&self.removed);
        let is_free = |id: &u16| !removed.contains(id) && self.index_by_id(*id).is_none();
        let mut ids = (count as u16..=u16::MAX).chain(0..count as u16);
        let (id, dynamic) = (ids.find(is_free)?, mapping.dynamic);
        drop(removed);
        let mut fields = IndexFields { dynamic, ..IndexFields::default() };
        let mut changes = self.changes();
        changes.push(CatalogChange::Index { id, name: name.to_owned(), dynamic });
        for (name, field) in &mapping.fields {
            let field_id = fields.insert(name, field.clone(), None);
            changes.push(CatalogChange::Field {
                index: id,
                id: field_id,
                name: name.clone(),
                field: field.clone(),
            });
        }
        Some((self.insert(id, name, fields), true))
    }

    /// Removes an index, so that it cannot be found any more.
    pub(super) fn remove(&self, name: &str) -> Option<Arc<IndexEntry>> {
        let _adding = lock(&self.add_lock);
        let entry = self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name)?;
        lock(&self.by_id).remove(&entry.id);
        lock(&self.removed).insert(entry.id);
        Some(entry)
    }

    /// Adds an index again that could not be deleted, unless there is a new one with its name.
    pub(super) fn restore(&self, entry: Arc<IndexEntry>) {
        let _adding = lock(&self.add_lock);
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        lock(&self.by_id).insert(entry.id, Arc::clone(&entry));
        by_name.entry(entry.name.clone()).or_insert(entry);
    }

    /// Removes all indices but these.
    pub(super) fn retain(&self, names: &HashSet<String>) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|name, _| names.contains(name));
        lock(&self.by_id).retain(|_, entry| names.contains(&entry.name));
    }

    /// Adds an index that was read from the database.
    pub(super) fn load_index(&self, id: u16, name: &str, dynamic: Dynamic) -> Arc<IndexEntry> {
        self.insert(id, name, IndexFields { dynamic, ..IndexFields::default() })
    }

    fn insert(&self, id: u16, name: &str, fields: IndexFields) -> Arc<IndexEntry> {
        let entry = Arc::new(IndexEntry { id, name: name.to_owned(), fields: RwLock::new(Arc::new(fields)) });
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.to_owned(), Arc::clone(&entry));
        lock(&self.by_id).insert(id, Arc::clone(&entry));
        entry
    }

    /// Adds a field that was read from the database.
    pub(super) fn load_field(&self, index: &IndexEntry, id: u16, name: &str, field: Field) {
        let mut fields = index.fields.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut fields).insert(name, field, Some(id));
    }

    /// Adds all of these fields to an index, or none. Existing fields must have the same type.
    pub(super) fn add_fields(
        &self,
        index: &IndexEntry,
        fields: &[(String, Field)],
    ) -> Result<(), MappingConflict> {
        let _adding = lock(&self.add_lock);
        let now = index.fields();
        for (name, field) in fields {
            check_field(&now, name, field, fields)?;
        }
        let new: Vec<_> = fields.iter().filter(|(name, _)| now.get(name).is_none()).collect();
        let visible = new.iter().filter(|(name, _)| !is_hidden(name)).count();
        if visible > 0 && visible + now.mapping().fields.len() > FIELDS_MAX {
            return Err(MappingConflict::Fields);
        }
        let mut changed = IndexFields::clone(&now);
        for (name, field) in new {
            let id = changed.insert(name, field.clone(), None);
            let (index, name, field) = (index.id, name.clone(), field.clone());
            self.changes().push(CatalogChange::Field { index, id, name, field });
        }
        *index.fields.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(changed);
        Ok(())
    }

    /// Sets the treatment of fields that are not in the mapping.
    pub(super) fn set_dynamic(&self, index: &IndexEntry, dynamic: Dynamic) {
        let _adding = lock(&self.add_lock);
        let mut fields = index.fields.write().unwrap_or_else(PoisonError::into_inner);
        if fields.dynamic != dynamic {
            Arc::make_mut(&mut fields).dynamic = dynamic;
            self.changes().push(CatalogChange::Index { id: index.id, name: index.name.clone(), dynamic });
        }
    }

    /// Adds rules about fields that are not in the mapping.
    pub(super) fn add_rules(&self, index: &IndexEntry, added: &MappingRules) {
        let _adding = lock(&self.add_lock);
        let mut fields = index.fields.write().unwrap_or_else(PoisonError::into_inner);
        let mut rules = fields.rules.clone();
        rules.merge(added);
        if fields.rules != rules {
            Arc::make_mut(&mut fields).rules = rules.clone();
            self.changes().push(CatalogChange::Rules { index: index.id, rules });
        }
    }

    /// Sets the rules that were read from the database.
    pub(super) fn load_rules(&self, index: &IndexEntry, rules: MappingRules) {
        let mut fields = index.fields.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut fields).rules = rules;
    }

    /// Removes and returns the additions that are not in the database yet. The caller writes them, or restores them.
    pub(super) fn take_changes(&self) -> Vec<CatalogChange> {
        std::mem::take(&mut *self.changes())
    }

    /// Restores additions that could not be written, before newer ones.
    pub(super) fn restore_changes(&self, mut older: Vec<CatalogChange>) {
        let mut changes = self.changes();
        older.append(&mut changes);
        *changes = older;
    }

    fn changes(&self) -> MutexGuard<'_, Vec<CatalogChange>> {
        lock(&self.changes)
    }
}

/// Checks a new field against the existing ones and the others of the same request.
fn check_field(
    now: &IndexFields,
    name: &str,
    field: &Field,
    others: &[(String, Field)],
) -> Result<(), MappingConflict> {
    if let Some(existing) = now.get(name) {
        if existing.field.field_type == field.field_type && existing.field.parent == field.parent {
            return Ok(());
        }
        let (from, to) = (existing.field.type_name().to_owned(), field.type_name().to_owned());
        return Err(MappingConflict::Type { name: name.to_owned(), from, to });
    }
    if is_hidden(name) {
        let ours = field.declared_type.as_deref() == Some(ALL_NUMBERS_FIELD);
        return if ours { Ok(()) } else { Err(MappingConflict::ReservedName(name.to_owned())) };
    }
    if field.parent.is_some() {
        return Ok(());
    }
    let is_value = |above: &str| now.get(above).is_some() || others.iter().any(|(other, _)| other == above);
    for (at, _) in name.match_indices('.') {
        if is_value(&name[..at]) {
            return Err(MappingConflict::ObjectOverValue(name[..at].to_owned()));
        }
    }
    if now.has_below(name) {
        return Err(MappingConflict::ObjectOverValue(name.to_owned()));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
