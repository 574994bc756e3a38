//! A child process that does not outlive its test, and whose stderr tests can wait for.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// A running child. Dropping it kills this process only.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`. A thread collects its stderr.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Process {
        let name = format!("{command:?}");
        command.stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stderr = child.stderr.take().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                collected.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Process { name, child, lines, reader: Some(reader) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the write end of the standard input, which must be a pipe.
    #[track_caller]
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Returns the stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until `find` finds a value in a line of stderr. Fails at once if the process ends first.
    #[track_caller]
    pub(crate) fn wait_line<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        find: impl Fn(&str) -> Option<T>,
    ) -> T {
        wait_for(deadline, what, || {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                self.join_reader();
            }
            let found = self.lines.lock().unwrap().iter().find_map(|line| find(line));
            assert!(
                found.is_some() || ended.is_none(),
                "{} ended ({ended:?}) without {what}:\n{}",
                self.name,
                self.stderr()
            );
            found
        })
    }

    /// Returns true until the process has ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to this process only.
    pub(crate) fn signal(&self, signal: Signal) {
        // The process may end at this moment; the wait after this reports its exit status.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for the end of the process.
    #[track_caller]
    fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let status = wait_for(deadline, &what, || self.child.try_wait().unwrap());
        self.join_reader();
        status
    }

    /// Waits for the end of the process, and panics unless it exits with `code`.
    #[track_caller]
    pub(crate) fn wait_code(&mut self, deadline: Duration, code: i32) {
        let status = self.wait(deadline);
        assert_eq!(status.code(), Some(code), "{} ended with {status}:\n{}", self.name, self.stderr());
    }

    /// Kills the process with SIGKILL and reaps it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_reader();
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("stderr of {}:\n{}", self.name, self.stderr());
        }
    }
}
