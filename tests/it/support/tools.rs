//! Programs that the tests run: `lea` itself, and tshark as the judge of captures.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary under test.
pub(crate) fn lea() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lea"))
}

/// Reads the whole file with tshark. An error is what tshark complained of: any exit code but 0, or any line on
/// stderr but its remark on running as root.
pub(crate) fn tshark_ok(file: &Path) -> Result<(), String> {
    let output = tshark(file, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaint: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("Running as user")).collect();
    if output.status.success() && complaint.is_empty() {
        return Ok(());
    }
    Err(format!("tshark on {}: {}: {}", file.display(), output.status, complaint.join(" / ")))
}

/// One field of all packets that a display filter lets through, as tshark prints it; a line a packet.
#[track_caller]
pub(crate) fn tshark_fields(file: &Path, filter: &str, field: &str) -> Vec<String> {
    let output = tshark(file, &["-Y", filter, "-T", "fields", "-e", field]);
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// tshark without name look-ups and without the user's own settings.
fn tshark(file: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(args);
    command.env("WIRESHARK_CONFIG_DIR", "/nonexistent").stdin(Stdio::null());
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run tshark: {error} (scripts/test.sh installs it)"))
}

/// `support/sender.py` with these arguments, in an environment of its own with the library that the field's senders
/// use, from PyPI.
pub(crate) fn kafka_python_sender(args: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = python("kafka-python");
    python.arg(root.join("tests/it/support/sender.py")).args(args).stdin(Stdio::null());
    python
}

/// The folder of a program of Debian's that is not installed: `syslog-ng`, `kamailio`.
pub(crate) fn unpacked(name: &str) -> PathBuf {
    PathBuf::from(printed(Command::new("scripts/debian-unpacked").arg(name)))
}

/// The interpreter of a Python environment that this script of scripts/ makes.
pub(crate) fn python(script: &str) -> Command {
    Command::new(printed(&mut Command::new(Path::new("scripts").join(script))))
}

/// The one line that a script prints.
fn printed(script: &mut Command) -> String {
    let output = script.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
