//! `lea number`: the canonical form of phone numbers, and how it is found.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;

use crate::support::lea;

fn number(dir: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(lea());
    command.current_dir(dir).arg("number").args(args);
    command
}

#[track_caller]
fn check_text(args: &[&str], code: i32, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = number(dir.path(), args).assert().code(code).get_output().clone();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_number_is_explained_in_a_table() {
    check_text(
        &["90046500729221", "john"],
        3,
        "\
NUMBER          CANONICAL     READ       COUNTRY  NATIONAL
90046500729221  +46500729221  after 900  46 SE    500729221
john            -             -          -        -

90046500729221
  after 900: +46500729221
  after 90: rejected, no assigned country code
  without a prefix: rejected, no number of country code 90 starts with these digits
  dialled forms:
    +46500729221 46500729221 9046500729221 0046500729221 90046500729221
    81046500729221 01146500729221 00046500729221 981046500729221 901146500729221
    900046500729221 001146500729221 000046500729221 90151146500729221

john
  not a phone number: invalid character 'j' in a phone number
",
    );
}

#[test]
fn json_has_the_same_explanation() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--json", "9011972598294121", "059-829-4121", "--default-region", "IL"];
    let output = number(dir.path(), &args).assert().code(0).get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = |row: &Value| {
        let keys = ["number", "canonical", "prefix", "country_code", "national"];
        keys.map(|key| row[key].to_string().replace('"', "")).join(" ")
    };
    assert_eq!(summary(&rows[0]), "9011972598294121 +972598294121 9011 972 598294121");
    assert_eq!(summary(&rows[1]), "059-829-4121 +972598294121 0 972 598294121");
    assert_eq!(rows[0]["regions"], serde_json::json!(["IL"]));
    let forms = rows[0]["dialled_forms"].as_array().unwrap();
    for form in ["+972598294121", "00972598294121", "901511972598294121", "0598294121"] {
        assert!(forms.contains(&form.into()), "{form}: {forms:?}");
    }
}

#[test]
fn prefixes_and_region_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lea.conf");
    let write =
        |numbers: &str| fs::write(&file, format!("{{\"parameters\": {{\"numbers\": {numbers}}}}}")).unwrap();
    let config = ["--config", "lea.conf"];
    let run = |args: &[&str]| {
        let mut command = number(dir.path(), &config);
        command.args(args).assert().get_output().clone()
    };
    write(r#"{"internationalPrefixes": ["119"], "fields": ["a"], "defaultRegion": "GB"}"#);
    assert_eq!(run(&["119972598294121", "07700900123"]).status.code(), Some(0));
    assert_eq!(run(&["+972598294121"]).status.code(), Some(3), "only what is listed is a prefix");
    assert_eq!(run(&["07700900123", "--default-region", "US"]).status.code(), Some(3));

    for (numbers, expected) in [
        ("[]", "parameters.numbers: expected an object, found a list"),
        (
            r#"{"internationalPrefixes": "00"}"#,
            "parameters.numbers.internationalPrefixes: expected a list of strings, found a string",
        ),
        (r#"{"internationalPrefixes": ["0x"]}"#, "\"0x\" is not an international prefix"),
        (r#"{"fields": ["_id"]}"#, "\"_id\" is not a valid field name"),
        (r#"{"defaultRegion": "XX"}"#, "\"XX\" is not a region"),
    ] {
        write(numbers);
        let output = run(&["972598294121"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{numbers}: {stderr}");
        assert!(stderr.contains(expected) && stderr.contains("line 1, column "), "{stderr}");
    }
    write(r#"{"defaultregion": "GB", "defaultRegion": ""}"#);
    let output = run(&["972598294121"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("unknown key"));
    let output = run(&["972598294121", "--lenient"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_number_or_an_unknown_region_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    number(dir.path(), &[]).assert().code(2);
    let output =
        number(dir.path(), &["972598294121", "--default-region", "XX"]).assert().code(2).get_output().clone();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("lea: --default-region: \"XX\" is not a region"), "{stderr}");
}
