//! In Markdown, no sentence has more than 40 words, no line more than 160 characters, and each line one sentence.

use super::{MarkdownKind, MarkdownLine, assert_none, markdown_files, markdown_lines, read, table_cells};

const WORDS_MAX: usize = 40;
const CHARACTERS_MAX: usize = 160;
const README_LINES_MAX: usize = 150;

/// Splits a text into sentences: at a full stop, question mark or exclamation mark before a space and a capital letter.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let mut words = text.split_whitespace().peekable();
    let mut is_code = false;
    while let Some(word) = words.next() {
        is_code ^= word.matches('`').count() % 2 == 1;
        let sentence = sentences.last_mut().expect("there is always one");
        sentence.push_str(word);
        sentence.push(' ');
        let ends =
            word.trim_end_matches(['*', ')', '"', '_']).ends_with(['.', '?', '!']) && !word.ends_with("...");
        let starts = words.peek().is_some_and(|next| {
            next.trim_start_matches(['*', '(', '"', '[', '_'])
                .starts_with(|c: char| c.is_uppercase() || c == '`')
        });
        let is_abbreviation =
            ["e.g.", "i.e."].contains(&word) || (sentence.trim_end() == word && super::is_numbered(sentence));
        if ends && starts && !is_code && !is_abbreviation {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Texts whose sentences are counted: cells of tables, items with their continuations, paragraphs.
fn blocks(lines: &[MarkdownLine]) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for line in lines {
        let text = line.text.trim();
        match line.kind {
            MarkdownKind::Table => {
                blocks.extend(table_cells(text).into_iter().map(|cell| (line.number, cell)))
            }
            MarkdownKind::Item | MarkdownKind::Paragraph if !text.is_empty() => match blocks.last_mut() {
                Some((_, block)) if continues && !starts_item(text) => {
                    block.push(' ');
                    block.push_str(text);
                }
                _ => blocks.push((line.number, text.to_owned())),
            },
            _ => {}
        }
        continues = matches!(line.kind, MarkdownKind::Item | MarkdownKind::Paragraph) && !text.is_empty();
    }
    blocks
}

fn starts_item(text: &str) -> bool {
    text.starts_with("- ") || text.starts_with("* ") || super::is_numbered(text)
}

fn problems(file: &str, text: &str) -> Vec<String> {
    let lines = markdown_lines(text);
    let mut problems = Vec::new();
    for line in &lines {
        let at = format!("{file}:{}", line.number);
        let length = line.text.chars().count();
        if !matches!(line.kind, MarkdownKind::Code | MarkdownKind::Table) && length > CHARACTERS_MAX {
            problems.push(format!("{at}: a line of {length} characters"));
        }
        let count = sentences(&line.text).len();
        if line.kind == MarkdownKind::Paragraph && count > 1 {
            problems.push(format!("{at}: {count} sentences in a line"));
        }
    }
    for (number, block) in blocks(&lines) {
        for sentence in sentences(&block) {
            let words = sentence.split_whitespace().count();
            if words > WORDS_MAX {
                let start: String = sentence.chars().take(60).collect();
                problems.push(format!("{file}:{number}: a sentence of {words} words: {start}..."));
            }
        }
    }
    problems
}

#[test]
fn markdown_has_short_sentences_and_lines() {
    let found: Vec<String> = markdown_files().iter().flat_map(|file| problems(file, &read(file))).collect();
    assert_none("lines to shorten", &found);
}

#[test]
fn readme_fits_on_a_few_screens() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, at most {README_LINES_MAX} are allowed");
}

#[test]
fn long_sentences_and_lines_are_found() {
    let words = |count: usize| "word ".repeat(count);
    let check = |text: &str, expected: usize| assert_eq!(problems("x.md", text).len(), expected, "{text}");
    check(&format!("{}end.\n", words(39)), 1 /* more than 160 characters */);
    check(&format!("{}\n{}end.\n", words(20), words(19)), 0);
    check(&format!("{}\n{}end.\n", words(20), words(20)), 1);
    check(&format!("- {}\n  {}end.\n", words(20), words(20)), 1);
    check(&format!("| {}end |\n", words(40)), 1);
    check("One sentence. And another.\n", 1);
    check("- One sentence. And another.\n", 0);
    check("See version 1.5. of it, e.g. `a. B`.\n", 0);
    check(&format!("```\n{}\n```\n", words(60)), 0);
}
