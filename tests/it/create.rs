//! Outputs that cannot be created: every command fails with the path, the reason and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::support::tmpfs::Tmpfs;
use crate::support::tools::lea;
use crate::support::{DEADLINE, Workdir, wait_for, wait_until};

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// Commands that create a directory, or a file in it, and their arguments. `{out}` is the directory, `{in}` an input directory.
const COMMANDS: [&[&str]; 5] = [
    &["serve-tcp", "--listen", "127.0.0.1:0", "--output", "{out}"],
    &["serve-events", "--http", "127.0.0.1:0", "--output", "{out}"],
    &["merge", "{in}", "--output", "{out}"],
    &["man", "{out}"],
    &["configure", "--config", "{out}/lea.conf"],
];

struct Scene {
    work: Workdir,
    program: PathBuf,
    as_nobody: bool,
}

impl Scene {
    fn new() -> Scene {
        let work = Workdir::new();
        fs::create_dir_all(work.join("in/.lea")).unwrap();
        Scene { work, program: lea(), as_nobody: false }
    }

    /// A scene whose commands run as a user who owns nothing. Anyone but root is such a user already.
    fn unprivileged() -> Scene {
        let mut scene = Scene::new();
        // Other users may not be able to reach the program where it was built.
        scene.program = scene.work.join("lea");
        // A child of another test could inherit a descriptor that is open for writing: then the program cannot be started.
        assert!(Command::new("cp").arg(lea()).arg(&scene.program).status().unwrap().success());
        for (path, mode) in [("", 0o755), ("in", 0o755), ("in/.lea", 0o755), ("lea", 0o755)] {
            fs::set_permissions(scene.work.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        scene.as_nobody = geteuid().is_root();
        scene
    }

    /// Runs a command until it ends. Returns its exit code and stderr.
    fn run(&self, args: &[&str], output: &Path) -> (Option<i32>, String) {
        let input = self.work.join("in");
        let output = output.to_str().unwrap();
        let args =
            args.iter().map(|arg| arg.replace("{in}", input.to_str().unwrap()).replace("{out}", output));
        let stderr = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(&self.program);
        command.args(args).current_dir("/").stderr(stderr.reopen().unwrap());
        if self.as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        let status = wait_for(DEADLINE, "the command to fail", || child.try_wait().unwrap());
        (status.code(), fs::read_to_string(stderr.path()).unwrap())
    }

    /// Checks that each command fails, and that its error has all of `expected`.
    #[track_caller]
    fn check(&self, output: &Path, expected: &[&str]) {
        for args in COMMANDS {
            let (code, stderr) = self.run(args, output);
            assert_eq!(code, Some(1), "{args:?}: {stderr}");
            for text in expected {
                assert!(stderr.contains(text), "{args:?}: {text:?} is missing in {stderr:?}");
            }
        }
    }
}

#[test]
fn a_file_system_without_new_directories_is_an_error() {
    let scene = Scene::new();
    scene.check(
        Path::new("/proc/nope"),
        &["/proc/nope", "No such file or directory", "nothing can be created in /proc; choose another path"],
    );
    scene.check(Path::new("/proc/nope/deeper"), &["/proc/nope", "nothing can be created in /proc"]);
}

#[test]
fn a_file_in_the_way_is_named() {
    let scene = Scene::new();
    let file = scene.work.write("file", "content");
    let name = file.display().to_string();
    scene.check(&file, &[&name, "ot a directory"]);
    scene.check(&file.join("deeper"), &[&name, "ot a directory"]);
    assert_eq!(fs::read(&file).unwrap(), b"content");
}

#[test]
fn a_missing_permission_is_explained() {
    let scene = Scene::unprivileged();
    let dir = scene.work.join("closed");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    let owner = if geteuid().is_root() { "(owner user root, mode 0555)" } else { "mode 0555)" };
    let needed = format!("needs write and search permission in {}", dir.display());
    scene.check(&dir.join("out"), &["Permission denied", &needed, owner]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_read_only_file_system_is_explained() {
    let scene = Scene::new();
    let disk = Tmpfs::mount(&scene.work, 1 << 20);
    wait_until(DEADLINE, "the remount", || {
        Command::new("mount").args(["-o", "remount,ro"]).arg(disk.join("")).status().unwrap().success()
    });
    scene.check(&disk.join("out"), &["the file system is read-only"]);
}
