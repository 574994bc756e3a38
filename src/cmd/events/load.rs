//! `lea events load`: files of events into a store. Main thread.
//!
//! Each line is stored once, however often the file is loaded and wherever a run was cut off: its id is a hash of its index,
//! its text and how many equal lines stand before it in the file, and a document whose id is there is left alone. So equal
//! lines are events of their own, and lines added at the end or taken out change no other's id.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::super::asked::client::Kind;
use super::super::asked::{WhereArgs, families};
use super::super::stored::harmless;
use super::line::{self, Unfit};
use super::target::{Outcome, Target};
use crate::cli::Globals;
use crate::config::Effective;
use crate::iri::document::{Document, Mode, SOURCE_BYTES_MAX, index_name};
use crate::iri::event::Indices;
use crate::iri::store::dead_letters;
use crate::iri::store::sqlite::{SqliteStore, StoreConfig};
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Bytes of a line: a dead letter whose text takes six bytes for each.
const LINE_BYTES_MAX: u64 = 6 * SOURCE_BYTES_MAX as u64 + 4_096;

/// Events and bytes that are written at once.
const BATCH_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Refused lines that are told one by one.
const TOLD_MAX: u64 = 100;

/// Take events in from files: JSON lines, dead letters, what lea search --json printed
///
/// Without FILE the folder's own dead letters are taken in again, and what still cannot be stored stays there. Other files
/// stay as they are.
///
/// A line is an event as senders send it, a dead letter (the event in it is taken), or an object with _index, _id and
/// _source. Each line is stored once, also if the file is loaded twice, or a run was killed: where a line has no _id, its id
/// is a hash of the index, the line and how many equal lines stand before it in the file. Equal lines of one file are events
/// of their own.
///
/// A folder that a running lea writes to is in use: load into that lea's URL then. The exit code is 3 if a line could not
/// be stored.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files; - is stdin [default: the folder's dead letters]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The index of events that name none [default: as where lines are received]
    #[arg(long, value_name = "INDEX", value_parser = checked_index)]
    index: Option<String>,
    #[command(flatten)]
    place: WhereArgs,
}

fn checked_index(text: &str) -> Result<String, String> {
    index_name(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

impl Args {
    /// Loads all files.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let configured = self.place.configured()?;
        let indices = match &self.index {
            Some(index) => Indices { calls: index.clone(), sentrypeer: index.clone(), syslog: index.clone() },
            None => configured.events.indices.clone(),
        };
        let target = self.target(&configured)?;
        let mut sums = Sums::default();
        if self.files.is_empty() {
            self.load_letters(&target, &indices, &mut sums)?;
        }
        for path in &self.files {
            let from: Box<dyn Read> = if path == Path::new("-") {
                Box::new(io::stdin().lock())
            } else {
                Box::new(File::open(path).map_err(Error::path("open", path))?)
            };
            Load::new(path, &target, &indices, None).all(from, &mut sums)?;
        }
        let Sums { stored, there, refused } = sums;
        logging::say(format_args!("loaded stored={stored} there_already={there} refused={refused}"));
        Ok(if refused == 0 { Exit::Done } else { Exit::Differs })
    }

    fn target(&self, configured: &Effective) -> Result<Target> {
        if self.place.is_url() {
            if self.files.is_empty() {
                return Err(Error::Usage(
                    "FILE is missing: only a folder has dead letters of its own".to_owned(),
                ));
            }
            let client = self.place.client()?;
            if client.kind(&[])? == Kind::Filled {
                return Err(Error::Usage(
                    "--store: a lea fills this cluster; load into that lea, which adds each event's time and numbers"
                        .to_owned(),
                ));
            }
            return Ok(Target::Url(client));
        }
        self.place.check_folder()?;
        let config = StoreConfig::default().with_families(families(configured)?);
        let store = SqliteStore::open(Path::new(&self.place.store), config)?;
        Ok(Target::Folder(Box::new(store), self.place.store.clone()))
    }

    /// The folder's own dead letters. The store is open to write, so no lea adds to them meanwhile.
    fn load_letters(&self, target: &Target, indices: &Indices, sums: &mut Sums) -> Result<()> {
        let own = Path::new(&self.place.store).join(".lea");
        let (path, rest_path) =
            (own.join(dead_letters::FILE), own.join(format!("{}.new", dead_letters::FILE)));
        let from = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(Error::path("open", &path))?,
        };
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let rest = options.open(&rest_path).map_err(Error::path("open", &rest_path))?;
        let mut load = Load::new(&path, target, indices, Some(BufWriter::new(rest)));
        load.all(from, sums)?;
        let failed = || Error::path("write", &rest_path);
        if let Some(rest) = load.rest {
            let rest = rest.into_inner().map_err(|error| failed()(error.into_error()))?;
            rest.sync_all().map_err(failed())?;
        }
        std::fs::rename(&rest_path, &path).map_err(Error::path("replace", &path))?;
        File::open(&own).and_then(|own| own.sync_all()).map_err(Error::path("sync", &own))
    }
}

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    stored: u64,
    there: u64,
    refused: u64,
}

/// One file on its way into the store.
struct Load<'a> {
    path: &'a Path,
    target: &'a Target,
    indices: &'a Indices,
    /// What cannot be stored is kept here.
    rest: Option<BufWriter<File>>,
    /// How many equal lines there were, by their hash.
    seen: HashMap<u64, u32>,
    batch: Vec<Line>,
    bytes: usize,
}

struct Line {
    no: u64,
    text: Vec<u8>,
    document: Document,
}

impl<'a> Load<'a> {
    fn new(
        path: &'a Path,
        target: &'a Target,
        indices: &'a Indices,
        rest: Option<BufWriter<File>>,
    ) -> Load<'a> {
        Load { path, target, indices, rest, seen: HashMap::new(), batch: Vec::new(), bytes: 0 }
    }

    fn all(&mut self, from: impl Read, sums: &mut Sums) -> Result<()> {
        let mut lines = BufReader::with_capacity(256 << 10, from);
        for no in 1.. {
            let mut text = Vec::new();
            let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
            if read.map_err(Error::path("read", self.path))? == 0 {
                break;
            }
            if text.last() != Some(&b'\n') && text.len() as u64 == LINE_BYTES_MAX {
                self.pass_over(&mut lines, &text)?;
                self.refuse(no, &format!("it is longer than {LINE_BYTES_MAX} bytes"), sums);
                continue;
            }
            match self.document(&text) {
                None => {}
                Some(Ok(document)) => {
                    self.bytes += text.len();
                    self.batch.push(Line { no, text, document });
                }
                Some(Err(unfit)) => {
                    self.keep(&text)?;
                    self.refuse(no, &unfit.to_string(), sums);
                }
            }
            if self.batch.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX {
                self.write(sums)?;
            }
        }
        self.write(sums)
    }

    /// A line's document with the id that is its own; none for an empty line.
    fn document(&mut self, text: &[u8]) -> Option<Result<Document, Unfit>> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return None;
        }
        let mut document = match line::read(text, self.indices) {
            Ok(document) => document,
            Err(unfit) => return Some(Err(unfit)),
        };
        if document.id.is_none() {
            let hash = Sha256::new().chain_update(&document.index).chain_update([0]).chain_update(text);
            let equal = self.seen.entry(short(hash.clone())).or_default();
            let id = hash.chain_update([0]).chain_update(equal.to_be_bytes()).finalize();
            *equal += 1;
            document.id = Some(format!("load-{}", URL_SAFE_NO_PAD.encode(&id[..20])));
        }
        document.mode = Mode::Create;
        Some(Ok(document))
    }

    fn write(&mut self, sums: &mut Sums) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let documents: Vec<Document> = batch.iter().map(|line| line.document.clone()).collect();
        for (line, outcome) in batch.iter().zip(self.target.write(documents)?) {
            match outcome {
                Outcome::Stored => sums.stored += 1,
                Outcome::There => sums.there += 1,
                Outcome::Refused(reason) => {
                    self.keep(&line.text)?;
                    self.refuse(line.no, &reason, sums);
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, no: u64, reason: &str, sums: &mut Sums) {
        sums.refused += 1;
        if sums.refused <= TOLD_MAX {
            let file = harmless(&self.path.to_string_lossy());
            log::warn!("event_refused file={file:?} line={no} reason=\"{}\"", harmless(reason));
        }
    }

    /// Keeps a line that cannot be stored, where there is a place for it.
    fn keep(&mut self, text: &[u8]) -> Result<()> {
        let Some(rest) = &mut self.rest else { return Ok(()) };
        let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
        rest.write_all(text)
            .and_then(|()| rest.write_all(end))
            .map_err(Error::path("write beside", self.path))
    }

    /// Takes what is left of a line that is too long, and keeps it where there is a place for it.
    fn pass_over(&mut self, lines: &mut impl BufRead, begin: &[u8]) -> Result<()> {
        let mut piece = begin.to_vec();
        loop {
            if let Some(rest) = &mut self.rest {
                rest.write_all(&piece).map_err(Error::path("write beside", self.path))?;
            }
            if piece.is_empty() || piece.ends_with(b"\n") {
                return Ok(());
            }
            piece.clear();
            let read = lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut piece);
            read.map_err(Error::path("read", self.path))?;
        }
    }
}

/// Enough to tell the lines of a file apart; two that it does not only get other numbers, the same ones each time.
fn short(hash: Sha256) -> u64 {
    let hash = hash.finalize();
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}
