//! Dumps that lack records, overlap or come in any order: each record is stored once and in order, or what is missing is
//! named. Each record of the dumps has 13 bytes of one of three streams.

use std::path::{Path, PathBuf};

use lea::cc::vault::manifest::SUFFIX;

use crate::stored::lea;
use crate::support::Workdir;
use crate::support::stored::names_in;

fn dump(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kafka_gaps").join(name)
}

/// Decodes dumps in one run. Returns stderr.
#[track_caller]
fn decode(output: &Path, dumps: &[&str], code: i32) -> String {
    let paths = dumps.iter().map(|name| dump(name));
    let run = lea(&["decode", "-o"]).arg(output).args(paths).assert().code(code);
    String::from_utf8(run.get_output().stderr.clone()).unwrap()
}

/// Returns stdout and stderr of a command on directories.
#[track_caller]
fn run(args: &[&str], dirs: &[&Path], code: i32) -> String {
    let run = lea(args).args(dirs).assert().code(code);
    let output = run.get_output();
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Content of the streams, in order of their names.
fn stored(output: &Path) -> Vec<Vec<u8>> {
    let names = names_in(output);
    let streams = names.iter().filter(|name| *name != ".lea" && !name.ends_with(SUFFIX));
    streams.map(|name| std::fs::read(output.join(name)).unwrap()).collect()
}

/// What the dump `whole.jsonl` has.
fn whole(work: &Workdir) -> Vec<Vec<u8>> {
    let output = work.join("exact");
    decode(&output, &["whole.jsonl"], 0);
    stored(&output)
}

#[test]
fn a_filtered_dump_has_gaps_that_verify_and_merge_name() {
    let work = Workdir::new();
    let output = work.join("out");
    decode(&output, &["grep.jsonl"], 0);
    let said = run(&["verify"], &[&output], 3);
    assert!(said.contains("a.bin: records may be missing"), "{said}");
    assert!(said.contains("interception-0 1 to 2, interception-0 4 to 5"), "{said}");
    assert!(said.contains("offsets that are not stored"), "{said}");
    let merged = work.join("merged");
    let said = run(&["merge", "-o", merged.to_str().unwrap()], &[&output], 3);
    assert!(said.contains("missing interception-0: offsets 1 to 2"), "{said}");
    assert!(said.contains(" missing=9 "), "{said}");
}

/// The streams of the other records have no later record, so all of them are stored.
#[test]
fn a_whole_dump_after_a_filtered_one() {
    let work = Workdir::new();
    let whole = whole(&work);
    assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [130; 3]);
    let output = work.join("out");
    decode(&output, &["grep.jsonl"], 0);
    let said = decode(&output, &["whole.jsonl"], 0);
    assert!(said.contains(" already_stored=10 late=0 "), "{said}");
    assert!(stored(&output) == whole);
    run(&["verify"], &[&output], 0);
}

#[test]
fn a_whole_dump_after_a_damaged_one() {
    let work = Workdir::new();
    let whole = whole(&work);
    let output = work.join("out");
    decode(&output, &["damaged-line.jsonl"], 3);
    run(&["verify"], &[&output], 3);
    let said = decode(&output, &["whole.jsonl"], 0);
    assert!(said.contains(" already_stored=29 late=0 "), "{said}");
    assert!(stored(&output) == whole);
    run(&["verify"], &[&output], 0);
}

#[test]
fn a_dump_that_is_sorted_newest_first() {
    let work = Workdir::new();
    let output = work.join("out");
    let said = decode(&output, &["newest-first.jsonl"], 0);
    assert!(said.contains(" late=0 ") && said.contains(" bytes=1000 "), "{said}");
    let text = std::fs::read_to_string(dump("newest-first.jsonl")).unwrap();
    let sorted: Vec<&str> = text.lines().rev().collect();
    let (sorted, exact) = (work.write("sorted", sorted.join("\n") + "\n"), work.join("exact"));
    decode(&exact, &[sorted.to_str().unwrap()], 0);
    assert!(stored(&output) == stored(&exact) && stored(&exact)[0].len() == 1000);
}

/// The first dump makes a capture, and nothing can be inserted before the header of a capture.
#[test]
fn a_record_that_cannot_be_inserted_is_named() {
    let work = Workdir::new();
    let (dump, header) = (work.join("dump"), "1MOyoQIABAAAAAAAAAAAAAAABAABAAAA");
    let line = |offset: u32, data: &str| {
        let value = format!(r#"{{\"userid\":\"u\",\"interceptionfilename\":\"a\",\"data\":\"{data}\"}}"#);
        format!("{{\"topic\":\"t\",\"partition\":0,\"offset\":{offset},\"payload\":\"{value}\"}}\n")
    };
    std::fs::write(&dump, line(5, header)).unwrap();
    let output = work.join("out");
    decode(&output, &[dump.to_str().unwrap()], 0);
    std::fs::write(&dump, line(4, "YWJj")).unwrap();
    let said = decode(&output, &[dump.to_str().unwrap()], 3);
    assert!(said.contains("record_late") && said.contains(" late=1 "), "{said}");
    assert_eq!(stored(&output)[0].len(), 24);
}

#[test]
fn dumps_without_a_partition_prove_nothing_about_each_other() {
    let work = Workdir::new();
    let output = work.join("out");
    let said = decode(&output, &["two-partitions/p0.log", "two-partitions/p1.log"], 0);
    assert!(said.contains(" bytes=1000 ") && said.contains(" duplicates=0 "), "{said}");
    let said = decode(&output, &["two-partitions/p1.log", "two-partitions/p0.log"], 0);
    assert!(said.contains(" bytes=0 ") && said.contains(" already_stored=10 "), "{said}");
}

#[test]
fn duplicates_are_found_across_any_gap() {
    let work = Workdir::new();
    let output = work.join("out");
    let said = decode(&output, &["gap-65537-a.jsonl", "gap-65537-b.jsonl"], 0);
    assert!(said.contains(" bytes=220 "), "{said}");
    assert_eq!(stored(&output).iter().map(Vec::len).sum::<usize>(), 220);
}
