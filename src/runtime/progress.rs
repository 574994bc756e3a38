//! Progress bar on stderr. While it is shown, log lines and status lines appear above it (see [`super::logging`]).
//!
//! Invariant: the cursor rests at the start of the bar's line. The terminal echoes `^C` where the cursor is: with the
//! cursor at the end of a full line, the echo would move it to the next line, and the bar could not be cleared anymore.

use std::io::{self, IsTerminal, Write};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// Template of a bar for a known number of bytes.
pub(crate) const BYTES_TEMPLATE: &str = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Redraws per second at most.
const REDRAWS_PER_SECOND: u8 = 20;

/// The bar that is shown now.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A progress bar that is cleared when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Creates a progress bar with an indicatif template. It is hidden unless `is_wanted` and stderr is a terminal.
    /// Without `length` the end is unknown. A process shows one bar at a time.
    pub(crate) fn new(is_wanted: bool, length: Option<u64>, template: &str) -> Progress {
        let is_visible = is_wanted && io::stderr().is_terminal();
        let target = match is_visible {
            true => ProgressDrawTarget::term_like_with_hz(Box::<BarTerminal>::default(), REDRAWS_PER_SECOND),
            false => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(length, target).with_style(style);
        if is_visible {
            *shown() = Some(bar.clone());
        }
        Progress(bar)
    }
}

impl Deref for Progress {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.0.is_hidden() {
            *shown() = None;
        }
        self.0.finish_and_clear();
    }
}

/// Writes to stderr. Hides the progress bar meanwhile.
pub(super) fn write_stderr(bytes: &[u8]) -> io::Result<()> {
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(|| io::stderr().write_all(bytes)),
        None => io::stderr().write_all(bytes),
    }
}

/// Clears the progress bar before the process exits without unwinding.
pub(super) fn clear() {
    let bar = shown().take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Terminal on stderr. Each redraw is one write.
#[derive(Debug, Default)]
struct BarTerminal {
    unwritten: Mutex<String>,
}

impl BarTerminal {
    fn push(&self, text: &str) -> io::Result<()> {
        self.unwritten().push_str(text);
        Ok(())
    }

    fn push_move(&self, count: usize, direction: char) -> io::Result<()> {
        if count > 0 { self.push(&format!("\x1b[{count}{direction}")) } else { Ok(()) }
    }

    fn unwritten(&self) -> MutexGuard<'_, String> {
        self.unwritten.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl TermLike for BarTerminal {
    fn width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        size.map(|size| size.ws_col).ok().filter(|columns| *columns > 0).unwrap_or(80)
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.push_move(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.push_move(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.push_move(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.push_move(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.push(text)?;
        self.push("\r\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut text = std::mem::take(&mut *self.unwritten());
        text.push('\r');
        io::stderr().write_all(text.as_bytes())
    }
}
