//! The indices and their fields, in memory: what prepares documents and reads questions looks here.
//!
//! A caller's thread adds an index or fields at once; the store's thread writes what is new into the database with the
//! next commit, which comes before or with the documents that need it. After a commit that failed it is still new.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::iri::date::Format;
use crate::iri::mapping::{Dynamic, FIELDS_MAX, Field, FieldType, Mapping};

/// Indices of one store: each costs every question that names none.
pub const INDICES_MAX: usize = 10_000;

/// Field numbers that every index has.
pub mod number {
    /// All documents.
    pub const ALL: u16 = 0;
    /// Documents that have a field; the value is its number.
    pub const EXISTS: u16 = 1;
    /// `_event_time`.
    pub const EVENT_TIME: u16 = 2;
    /// `_number`.
    pub const NUMBER: u16 = 3;
    /// The type, where one was given.
    pub const KIND: u16 = 4;
    /// The first of a mapping's fields.
    pub const FIRST: u16 = 16;
    /// With this bit: the hours of a date field.
    pub const HOURS: u16 = 0x8000;
}

pub use crate::iri::store::EVENT_TIME;

/// The name of all numbers of a document.
pub const NUMBER: &str = "_number";
/// The field `F._number` of a field.
pub fn family_field() -> Field {
    Field { declared: Some(NUMBER.to_owned()), ..Field::of(FieldType::Keyword) }
}

/// What follows a field's name for the numbers in it.
pub const NUMBER_SUFFIX: &str = "._number";

/// A field as documents and questions need it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number in the index.
    pub no: u16,
    /// Its type.
    pub field: Field,
    /// Names of fields that repeat its values.
    pub subs: Vec<String>,
    /// The number of its `F._number`.
    pub family: Option<u16>,
    /// How dates in it are read, where it names a format.
    pub dates: Option<Arc<Format>>,
}

/// The fields of one index.
#[derive(Clone, Debug)]
pub struct Fields {
    /// What becomes of fields that are not here.
    pub dynamic: Dynamic,
    by_name: BTreeMap<String, Entry>,
    next_no: u16,
}

impl Default for Fields {
    fn default() -> Fields {
        let mut fields =
            Fields { dynamic: Dynamic::default(), by_name: BTreeMap::new(), next_no: number::FIRST };
        fields.put(EVENT_TIME, Field::of(FieldType::Date), Some(number::EVENT_TIME));
        fields.put(NUMBER, family_field(), Some(number::NUMBER));
        fields
    }
}

impl Fields {
    /// The field of that name; hidden ones too.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }

    /// All fields by name, hidden ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.by_name.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The mapping, without hidden fields.
    pub fn mapping(&self) -> Mapping {
        let shown = self.iter().filter(|(name, _)| !is_hidden(name));
        let fields = shown.map(|(name, entry)| (name.to_owned(), entry.field.clone())).collect();
        Mapping { dynamic: self.dynamic, fields }
    }

    /// Puts a field, under its number where it has one.
    fn put(&mut self, name: &str, field: Field, no: Option<u16>) -> u16 {
        let no = no.unwrap_or(self.next_no);
        self.next_no = self.next_no.max(no + 1);
        if let Some(parent) = field.parent.as_deref().and_then(|parent| self.by_name.get_mut(parent)) {
            parent.subs.push(name.to_owned());
        }
        let of_number = name.strip_suffix(NUMBER_SUFFIX).and_then(|of| self.by_name.get_mut(of));
        if let Some(of) = of_number {
            of.family = Some(no);
        }
        let subs = self.iter().filter(|(_, sub)| sub.field.parent.as_deref() == Some(name));
        let subs = subs.map(|(name, _)| name.to_owned()).collect();
        // The parser of mappings has looked at it.
        let dates = field.format.as_deref().and_then(|format| Format::parse(format).ok()).map(Arc::new);
        let family = self.by_name.get(&format!("{name}{NUMBER_SUFFIX}")).map(|family| family.no);
        self.by_name.insert(name.to_owned(), Entry { no, field, subs, family, dates });
        no
    }
}

/// True for a field that the store makes.
pub fn is_hidden(name: &str) -> bool {
    name == EVENT_TIME || name == NUMBER || name.ends_with(NUMBER_SUFFIX)
}

/// An index.
#[derive(Debug)]
pub struct IndexEntry {
    /// Its number.
    pub no: u16,
    /// Its name.
    pub name: String,
    fields: RwLock<Arc<Fields>>,
}

impl IndexEntry {
    /// Its fields as they are now.
    pub fn fields(&self) -> Arc<Fields> {
        Arc::clone(&self.fields.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is not in the database yet.
#[derive(Clone, Debug)]
pub enum Change {
    /// An index, or its `dynamic`.
    Index {
        /// Its number.
        no: u16,
        /// Its name.
        name: String,
        /// What becomes of unknown fields.
        dynamic: Dynamic,
    },
    /// A field.
    Field {
        /// The index's number.
        index: u16,
        /// Its number.
        no: u16,
        /// Its full name.
        name: String,
        /// Its type.
        field: Field,
    },
}

/// Why fields cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// It is there, with another type.
    #[error("mapper [{name}] cannot be changed from type [{from}] to [{to}]")]
    Type {
        /// The field.
        name: String,
        /// The type that it has.
        from: String,
        /// The type that was put.
        to: String,
    },
    /// There are as many as there may be.
    #[error("Limit of total fields [{FIELDS_MAX}] has been exceeded")]
    Fields,
    /// A name of the store's own.
    #[error("field name [{0}] is reserved")]
    Reserved(String),
    /// A field with a value cannot have fields below it.
    #[error("can't merge a non object mapping [{0}] with an object mapping")]
    Object(String),
}

/// All indices.
#[derive(Debug, Default)]
pub struct Catalogue {
    by_name: RwLock<BTreeMap<String, Arc<IndexEntry>>>,
    by_no: Mutex<HashMap<u16, Arc<IndexEntry>>>,
    changes: Mutex<Vec<Change>>,
    /// Only one at a time adds, so that numbers are given once.
    adding: Mutex<()>,
}

impl Catalogue {
    /// The index of that name.
    pub fn get(&self, name: &str) -> Option<Arc<IndexEntry>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All indices, by name.
    pub fn all(&self) -> Vec<Arc<IndexEntry>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The index of that number.
    pub fn by_no(&self, no: u16) -> Option<Arc<IndexEntry>> {
        lock(&self.by_no).get(&no).cloned()
    }

    /// Makes an index; `None` where there are too many. True: it was not there.
    pub fn create(&self, name: &str, dynamic: Dynamic) -> Option<(Arc<IndexEntry>, bool)> {
        let _adding = lock(&self.adding);
        if let Some(there) = self.get(name) {
            return Some((there, false));
        }
        let count = self.by_name.read().unwrap_or_else(PoisonError::into_inner).len();
        if count >= INDICES_MAX {
            return None;
        }
        let no = count as u16;
        self.changes().push(Change::Index { no, name: name.to_owned(), dynamic });
        Some((self.load_index(no, name, dynamic), true))
    }

    /// Puts an index that is in the database.
    pub fn load_index(&self, no: u16, name: &str, dynamic: Dynamic) -> Arc<IndexEntry> {
        let fields = Fields { dynamic, ..Fields::default() };
        let entry = Arc::new(IndexEntry { no, name: name.to_owned(), fields: RwLock::new(Arc::new(fields)) });
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.to_owned(), Arc::clone(&entry));
        lock(&self.by_no).insert(no, Arc::clone(&entry));
        entry
    }

    /// Puts a field that is in the database.
    pub fn load_field(&self, index: &IndexEntry, no: u16, name: &str, field: Field) {
        let mut fields = index.fields.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut fields).put(name, field, Some(no));
    }

    /// Adds fields to an index: all of them or none. Those that are there already must be of the same type.
    pub fn add_fields(&self, index: &IndexEntry, fields: &[(String, Field)]) -> Result<(), Clash> {
        let _adding = lock(&self.adding);
        let now = index.fields();
        for (name, field) in fields {
            check(&now, name, field, fields)?;
        }
        let new: Vec<_> = fields.iter().filter(|(name, _)| now.get(name).is_none()).collect();
        let shown = new.iter().filter(|(name, _)| !is_hidden(name)).count();
        if shown > 0 && shown + now.mapping().fields.len() > FIELDS_MAX {
            return Err(Clash::Fields);
        }
        let mut changed = Fields::clone(&now);
        for (name, field) in new {
            let no = changed.put(name, field.clone(), None);
            let (index, name, field) = (index.no, name.clone(), field.clone());
            self.changes().push(Change::Field { index, no, name, field });
        }
        *index.fields.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(changed);
        Ok(())
    }

    /// Sets what becomes of fields that are not in the mapping.
    pub fn set_dynamic(&self, index: &IndexEntry, dynamic: Dynamic) {
        let _adding = lock(&self.adding);
        let mut fields = index.fields.write().unwrap_or_else(PoisonError::into_inner);
        if fields.dynamic != dynamic {
            Arc::make_mut(&mut fields).dynamic = dynamic;
            self.changes().push(Change::Index { no: index.no, name: index.name.clone(), dynamic });
        }
    }

    /// What is not in the database yet; the caller brings it there, or gives it back.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes())
    }

    /// Gives back changes that could not be written; they come before newer ones.
    pub fn give_back(&self, mut older: Vec<Change>) {
        let mut changes = self.changes();
        older.append(&mut changes);
        *changes = older;
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        lock(&self.changes)
    }
}

/// Checks one field against those that are there and those that come with it.
fn check(now: &Fields, name: &str, field: &Field, others: &[(String, Field)]) -> Result<(), Clash> {
    if let Some(there) = now.get(name) {
        if there.field.kind == field.kind && there.field.parent == field.parent {
            return Ok(());
        }
        let (from, to) = (there.field.type_name().to_owned(), field.type_name().to_owned());
        return Err(Clash::Type { name: name.to_owned(), from, to });
    }
    if is_hidden(name) {
        let ours = field.declared.as_deref() == Some(NUMBER);
        return if ours { Ok(()) } else { Err(Clash::Reserved(name.to_owned())) };
    }
    if field.parent.is_some() {
        return Ok(());
    }
    let taken = |above: &str| now.get(above).is_some() || others.iter().any(|(other, _)| other == above);
    for (at, _) in name.match_indices('.') {
        if taken(&name[..at]) {
            return Err(Clash::Object(name[..at].to_owned()));
        }
    }
    let below = format!("{name}.");
    let is_below = |(other, field): (&str, &Field)| other.starts_with(&below) && field.parent.is_none();
    if now.iter().any(|(other, entry)| is_below((other, &entry.field))) {
        return Err(Clash::Object(name.to_owned()));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
