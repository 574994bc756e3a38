//! A control group with a limit of memory. The kernel kills a process in it that needs more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A control group. Dropping it removes it; its processes must have ended.
pub(crate) struct ControlGroup {
    dir: PathBuf,
}

impl ControlGroup {
    /// Creates a group with a limit of memory, in either version of control groups.
    #[track_caller]
    pub(crate) fn with_memory(bytes: u64) -> ControlGroup {
        let name = format!("lea-test-{}", std::process::id());
        let (root, limit) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        if limit == "memory.max" {
            // The controller may be on already.
            let _ = fs::write(Path::new(root).join("cgroup.subtree_control"), "+memory");
        }
        let group = ControlGroup { dir: Path::new(root).join(name) };
        let made =
            fs::create_dir(&group.dir).and_then(|()| fs::write(group.dir.join(limit), bytes.to_string()));
        made.unwrap_or_else(|error| panic!("this test needs a control group, as root: {error}"));
        group
    }

    /// Returns a command that runs a program in the group.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.dir.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// Returns the most memory that the group has used, page cache included.
    pub(crate) fn most_bytes(&self) -> u64 {
        let names = ["memory.max_usage_in_bytes", "memory.peak"];
        let text = names.iter().find_map(|name| fs::read_to_string(self.dir.join(name)).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}
