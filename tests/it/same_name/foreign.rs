//! Files under a stream name that lea did not write, or that were changed: they are never touched.

use std::os::unix::fs::{FileTypeExt, symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// Puts something under a name.
type Put = fn(&Path);

/// The things that are put there.
const THINGS: [(&str, Put); 5] = [
    ("file", |path| fs::write(path, "not ours").unwrap()),
    ("link", |path| {
        let target = path.parent().unwrap().parent().unwrap().join("target");
        fs::write(&target, "elsewhere").unwrap();
        symlink(target, path).unwrap();
    }),
    ("dangling link", |path| symlink("nowhere", path).unwrap()),
    ("folder", |path| fs::create_dir(path).unwrap()),
    ("fifo", |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap()),
];

/// A stream whose file name or manifest name is occupied by `thing`.
fn check_foreign(test: &str, taken: &str, put: Put) {
    let mut scene = Scene::with(test, |output| put(&output.join(taken)), &[]);
    let (path, content) = (scene.output().join(taken), scene.capture(5_000));
    let before = identity(&path);
    scene.send(&content[..2_000], NAME_2, 1);
    // The following streams find their own part.
    scene.send(&content, NAME_2, 2);
    scene.send(b"more", NAME_2, 3);
    assert_eq!(identity(&path), before, "{test}");
    let target = scene.work.join("target");
    assert!(!target.exists() || fs::read(target).unwrap() == b"elsewhere", "{test}: written through a link");
    assert!(!scene.output().join("nowhere").exists(), "{test}: made through a link");
    let output = scene.output().to_owned();
    scene.server.term();
    assert_whole(&output, NAME_2, &[&content[..], b"more"].concat());
    let expected = [".lea", taken, NAME_2, &format!("{NAME_2}{SUFFIX}")].map(str::to_owned).into();
    assert_eq!(names_in(&output), expected, "{test}");
}

#[test]
fn what_is_not_ours_is_never_touched() {
    for (what, put) in THINGS {
        check_foreign(what, NAME, put);
    }
}

#[test]
fn nor_what_has_the_name_of_a_manifest() {
    let manifest = format!("{NAME}{SUFFIX}");
    for (what, put) in THINGS {
        check_foreign(&format!("{what} for a manifest"), &manifest, put);
    }
}

#[test]
fn a_fifo_is_a_fifo_still() {
    let name = "fifo";
    let mut scene = Scene::with("fifo", |output| THINGS[4].1(&output.join(name)), &[]);
    let content = scene.capture(1_000);
    let mut sender = Sender::open(scene.addr(), name, Handshake::Newline);
    sender.send(&content);
    sender.finish();
    wait_connections(scene.output(), "fifo.2", 1);
    assert!(fs::symlink_metadata(scene.output().join(name)).unwrap().file_type().is_fifo());
}

#[test]
fn a_stored_file_that_was_changed_is_left_alone() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 3] = [
        ("longer", |stored| stored.push(0)),
        ("shorter", |stored| stored.truncate(3_000)),
        // This change is noticed only by reading the whole file.
        ("one bit", |stored| stored[3_000] ^= 1),
    ];
    for (what, change) in changes {
        for goes_on in [true, false] {
            let mut scene = Scene::new(what);
            let content = scene.capture(6_000);
            scene.send(&content, NAME, 1);
            let path = scene.output().join(NAME);
            let mut changed = content.clone();
            change(&mut changed);
            fs::write(&path, &changed).unwrap();
            let before = identity(&path);
            let sent: &[u8] = if goes_on { b"more" } else { &content };
            scene.send(sent, NAME_2, 1);
            assert_eq!(identity(&path), before, "{what}");
            let output = scene.output().to_owned();
            let stderr = scene.server.term();
            assert_whole(&output, NAME_2, sent);
            let warned =
                stderr.lines().any(|line| line.contains("stored_file_changed") && line.contains(NAME));
            // A re-send that differs does not cause a warning, because the stored file need not have changed.
            assert!(warned || (what == "one bit" && !goes_on), "{what}, {goes_on}: {stderr}");
        }
    }
}

#[test]
fn a_manifest_of_another_file_is_not_believed() {
    let mut scene = Scene::new("other's manifest");
    let (first, second) = (scene.capture(4_000), scene.capture(4_000));
    scene.send(&first, NAME, 1);
    // Both files were copied to another name.
    for suffix in ["", SUFFIX] {
        let path = |name: &str| scene.output().join(format!("{name}{suffix}"));
        fs::copy(path(NAME), path("copy")).unwrap();
    }
    let mut sender = Sender::open(scene.addr(), "copy", Handshake::Newline);
    sender.send(&second[24..]);
    sender.finish();
    wait_connections(scene.output(), "copy.2", 1);
    assert_whole(scene.output(), NAME, &first);
    assert_whole(scene.output(), "copy.2", &second[24..]);
}
