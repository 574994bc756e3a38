//! The Python clients of Elasticsearch 7 and OpenSearch, with password and gzip.

use std::path::Path;
use std::process::Stdio;

use super::support::{Events, Workdir, python};

/// `tests/it/support/search_client.py` sends the requests and checks the answers.
#[track_caller]
fn check(module: &str) {
    let work = Workdir::new();
    let events = Events::with_user(&work, "analyst", "s3cret", &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/search_client.py");
    let mut client = python("python-search");
    client.arg(script).args([module, &events.http().port().to_string(), "analyst", "s3cret"]);
    let said = client.stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = events.term();
    // 2,000 documents in the two indices, and one that was replaced.
    assert!(said.contains("events=2002 "), "{said}");
}

#[test]
fn elasticsearch_py_7_is_served() {
    check("elasticsearch");
}

#[test]
fn opensearch_py_is_served() {
    check("opensearchpy");
}
