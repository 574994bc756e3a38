//! Programs that the tests run: `lea` itself, and tshark as an independent reader of captures.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Returns the path of the binary under test.
pub(crate) fn lea() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lea"))
}

/// Reads the whole file with tshark. Fails on any exit code except 0, and on any line on stderr except its
/// warning about running as root.
pub(crate) fn tshark_ok(file: &Path) -> Result<(), String> {
    let output = tshark(file, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaint: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("Running as user")).collect();
    if output.status.success() && complaint.is_empty() {
        return Ok(());
    }
    Err(format!("tshark on {}: {}: {}", file.display(), output.status, complaint.join(" / ")))
}

/// Returns one field of all packets that match a display filter, one line per packet, as tshark prints it.
#[track_caller]
pub(crate) fn tshark_fields(file: &Path, filter: &str, field: &str) -> Vec<String> {
    let output = tshark(file, &["-Y", filter, "-T", "fields", "-e", field]);
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Runs tshark without name resolution and without the user's settings.
fn tshark(file: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(args);
    command.env("WIRESHARK_CONFIG_DIR", "/nonexistent").stdin(Stdio::null());
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run tshark: {error} (scripts/test.sh installs it)"))
}

/// Runs `support/sender.py` with these arguments, in a Python environment with the Kafka library of the
/// senders in the field.
pub(crate) fn kafka_python_sender(args: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = python("kafka-python");
    python.arg(root.join("tests/it/support/sender.py")).args(args).stdin(Stdio::null());
    python
}

/// Runs `support/sender.js` with these arguments, with KafkaJS.
pub(crate) fn kafkajs(args: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = Command::new("node");
    node.env("NODE_PATH", printed(&mut Command::new("scripts/kafkajs")));
    node.arg(root.join("tests/it/support/sender.js")).args(args).stdin(Stdio::null());
    node
}

/// Returns the directory of a Debian program that is unpacked and not installed: `syslog-ng`, `kamailio`.
pub(crate) fn unpacked(name: &str) -> PathBuf {
    PathBuf::from(printed(Command::new("scripts/debian-unpacked").arg(name)))
}

/// Returns the interpreter of the Python environment that this script of scripts/ creates.
pub(crate) fn python(script: &str) -> Command {
    Command::new(printed(&mut Command::new(Path::new("scripts").join(script))))
}

/// Returns the single line that a script prints.
fn printed(script: &mut Command) -> String {
    let output = script.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
