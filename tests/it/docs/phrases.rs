//! Phrases that make a reader read twice do not occur in comments and documents.

use super::{MarkdownKind, assert_none, markdown_files, markdown_lines, read, rust_files, script_files};

/// Banned phrases, and what to write instead. They match whole words, in lower case.
const BANNED: [(&str, &str); 41] = [
    ("a thread a", "one thread per"),
    ("a line a", "one line per"),
    ("a row a", "one row per"),
    ("a warning a", "one warning per"),
    ("bytes a send", "bytes per send"),
    ("bytes an event", "bytes per event"),
    ("events a second", "events per second"),
    ("once a day", "once per day"),
    ("is none of", "is not one of"),
    ("one behind the other", "one after another"),
    ("behind it", "after it"),
    ("behind them", "after them"),
    ("beside it", "next to it, or at the same time"),
    ("beside them", "next to them, or at the same time"),
    ("beside each other", "at the same time, or next to each other"),
    ("begun packet", "partial packet"),
    ("at the begin", "at the start"),
    ("its begin", "its start"),
    ("from its begin", "from its start"),
    ("goes before", "overrides"),
    ("so long", "for that time, or as long as"),
    ("so much", "that much, or as much as"),
    ("so many", "that many, or as many as"),
    ("as long as that", "for that time"),
    ("whence", "where from"),
    ("whoever", "a person or program that"),
    ("for ever", "forever, or without a limit"),
    ("of its own accord", "by itself"),
    ("there already", "already stored"),
    ("it stands", "it is"),
    ("as it stands", "as it is"),
    ("stands in", "is in"),
    ("stand in the", "are in the"),
    ("as it came", "as received"),
    ("what comes", "input, or the next"),
    ("what came", "input, or received data"),
    ("where that is", "if that is"),
    ("is told", "receives, or is configured"),
    ("put off", "deferred"),
    ("passed over", "skipped"),
    ("taken apart", "parsed, or split"),
];

/// The comments of a Rust file: line number and text.
fn rust_comments(text: &str) -> Vec<(usize, String)> {
    comments(text, "//")
}

/// The comments of a script: line number and text.
fn script_comments(text: &str) -> Vec<(usize, String)> {
    comments(text, "#")
}

/// Joins each line with the next one, so that a phrase over a line break is found.
fn comments(text: &str, mark: &str) -> Vec<(usize, String)> {
    let content = |line: &str| {
        let line = line.trim_start();
        line.starts_with(mark).then(|| line.trim_start_matches(['/', '!', '#', ' ']).to_owned())
    };
    let lines: Vec<Option<String>> = text.lines().map(content).collect();
    joined(&lines)
}

/// Texts of lines with the first words of the following line.
fn joined(lines: &[Option<String>]) -> Vec<(usize, String)> {
    let text = |at: usize| lines.get(at).and_then(Option::as_deref);
    let with_next = |at: usize| {
        let next: Vec<&str> = text(at + 1).unwrap_or("").split_whitespace().take(3).collect();
        Some((at + 1, format!("{} {}", text(at)?, next.join(" "))))
    };
    (0..lines.len()).filter_map(with_next).collect()
}

fn text_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// "Is no longer", and the words after "there", are fine.
const IS_NO: (&str, &str) = ("is no", "is not a");

/// The phrases in a text, with what to write instead.
fn banned(raw_text: &str) -> Vec<&'static (&'static str, &'static str)> {
    // The end of a sentence or clause is a word of its own, so that no phrase is found across it.
    let bare = |word: String| {
        let ends = word.ends_with(['.', ',', ';', ':', '?', '!', ')']);
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        [Some(bare), ends.then(|| "|".to_owned())]
    };
    let words = text_words(raw_text).into_iter().flat_map(bare).flatten();
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let text = format!(" {} ", words.join(" "));
    // Here punctuation counts: "as it is: no index" is another sentence.
    let raw = text_words(raw_text);
    let is_no = raw.windows(4).any(|words| {
        let [before, is, no, after] = words else { return false };
        before != "there" && is == "is" && no == "no" && !after.starts_with("longer")
    });
    let listed = BANNED.iter().filter(|(phrase, _)| text.contains(&format!(" {phrase} ")));
    listed.chain(is_no.then_some(&IS_NO)).collect()
}

fn problems(file: &str, lines: &[(usize, String)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut last = None;
    for (number, text) in lines {
        for (phrase, instead) in banned(text) {
            // A phrase at the start of a line is also found at the end of the line before it.
            if last != Some((number - 1, phrase)) {
                found.push(format!("{file}:{number}: {phrase:?} (write: {instead})"));
            }
            last = Some((*number, phrase));
        }
    }
    found
}

#[test]
fn comments_and_documents_have_no_banned_phrases() {
    let mut found = Vec::new();
    for file in rust_files() {
        found.extend(problems(&file, &rust_comments(&read(&file))));
    }
    for file in script_files() {
        found.extend(problems(&file, &script_comments(&read(&file))));
    }
    for file in markdown_files() {
        let text = read(&file);
        let is_prose = |kind| kind != MarkdownKind::Code;
        let lines = markdown_lines(&text).into_iter().map(|line| is_prose(line.kind).then_some(line.text));
        found.extend(problems(&file, &joined(&lines.collect::<Vec<_>>())));
    }
    assert_none("phrases to rewrite", &found);
}

#[test]
fn banned_phrases_are_found() {
    let check = |text: &str, expected: usize| {
        assert_eq!(problems("x.rs", &rust_comments(text)).len(), expected, "{text}")
    };
    check("// A file that is no capture.\n", 1);
    check("    /// Waits so\n    /// long.\n", 1);
    check("let text = \"is no capture\";\n", 0);
    check("// Wherever it stands, it is read.\n", 1);
    check("// There is no capture. It is no longer open.\n", 0);
}
