//! The examples of the documentation, executed.

use super::console::{Session, steps};
use super::{markdown_files, read};

#[test]
fn examples_of_the_pages_run() {
    let mut count = 0;
    for file in markdown_files() {
        let steps = steps(&read(&file));
        if steps.is_empty() {
            continue;
        }
        eprintln!("{file}: {} commands", steps.len());
        let mut session = Session::new();
        for step in &steps {
            eprintln!("{file}: $ {}", step.command);
            session.execute(step);
        }
        count += steps.len();
    }
    assert!(count >= 20, "only {count} commands were found in the pages");
}
