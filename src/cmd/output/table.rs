//! Aligned tables on stdout. On a terminal a table fits the width: columns are narrowed, and the least important ones
//! dropped. In a pipe or a file every column has its full width. Text is escaped before it is printed.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

use clap::builder::styling::{AnsiColor, Color, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::stdout;
use crate::Result;
use crate::runtime::terminal::escape;

/// Smallest width of a column that may be narrowed.
const COLUMN_MIN: usize = 6;

/// A column of a table. It is left-aligned, may be narrowed, and is never dropped, unless a method says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Column<'a> {
    name: &'a str,
    is_number: bool,
    /// Order in which columns are dropped: the highest first; 0 is never dropped.
    rank: u8,
    width_min: usize,
    /// True if the middle of a long cell is left out, not its end.
    keeps_end: bool,
    style: fn(&str) -> Style,
}

impl<'a> Column<'a> {
    pub(crate) fn new(name: &'a str) -> Column<'a> {
        let style = |_: &str| Style::new();
        Column { name, is_number: false, rank: 0, width_min: COLUMN_MIN, keeps_end: false, style }
    }

    /// Right-aligns the column and prevents narrowing.
    pub(crate) fn number(self) -> Column<'a> {
        Column { is_number: true, width_min: usize::MAX, ..self }
    }

    /// Prevents narrowing.
    pub(crate) fn whole(self) -> Column<'a> {
        Column { width_min: usize::MAX, ..self }
    }

    /// Allows narrowing to `width`, with the middle of long cells left out: names differ at both ends.
    pub(crate) fn shortened_to(self, width: usize) -> Column<'a> {
        Column { width_min: width, keeps_end: true, ..self }
    }

    /// Allows narrowing to `width`, with the end of long cells left out.
    pub(crate) fn narrowed_to(self, width: usize) -> Column<'a> {
        Column { width_min: width, ..self }
    }

    /// Allows to drop the column if the terminal is too narrow; the highest rank is dropped first.
    pub(crate) fn dropped(self, rank: u8) -> Column<'a> {
        Column { rank, ..self }
    }

    /// Sets the style of each cell on a terminal.
    pub(crate) fn styled(self, style: fn(&str) -> Style) -> Column<'a> {
        Column { style, ..self }
    }
}

/// Style of states that need attention.
pub(crate) const BAD: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));
/// Style of states to look at.
pub(crate) const DOUBTFUL: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));
/// Style of states that are as they should be.
pub(crate) const GOOD: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));

/// Prints a table. Each row has one cell per column.
pub(crate) fn print(columns: &[Column<'_>], rows: &[Vec<String>]) -> Result<()> {
    stdout::print(&format(columns, rows, terminal_width(), has_colors())).map(drop)
}

/// A table whose rows are printed one by one, because they do not fit into memory. Each column has a fixed width; a longer
/// cell is truncated on a terminal only.
pub(crate) struct StreamedTable<'a> {
    columns: Vec<Column<'a>>,
    widths: Vec<Option<usize>>,
    is_terminal: bool,
    is_colored: bool,
}

impl<'a> StreamedTable<'a> {
    /// Creates a table with columns and their widths.
    pub(crate) fn new(columns: Vec<(Column<'a>, usize)>) -> StreamedTable<'a> {
        let (columns, full): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let room = terminal_width();
        let widths = fit(&columns, &full, room);
        StreamedTable { columns, widths, is_terminal: room.is_some(), is_colored: has_colors() }
    }

    /// Formats the header line.
    pub(crate) fn header(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(|column| escape(column.name)).collect();
        self.line(&head, false)
    }

    /// Formats a row, which has one cell per column.
    pub(crate) fn row(&self, cells: &[String]) -> String {
        let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
        self.line(&cells, self.is_colored)
    }

    fn line(&self, cells: &[String], colored: bool) -> String {
        let widen = |(width, cell): (&Option<usize>, &String)| {
            width.map(|width| if self.is_terminal { width } else { width.max(cell.width()) })
        };
        let widths: Vec<Option<usize>> = self.widths.iter().zip(cells).map(widen).collect();
        let mut text = String::new();
        add_line(&mut text, &self.columns, &widths, cells, colored);
        text.truncate(text.trim_end().len());
        text
    }
}

/// Formats a table; `room` is the width of the terminal, if stdout is one.
fn format(columns: &[Column<'_>], rows: &[Vec<String>], room: Option<usize>, colored: bool) -> String {
    let head: Vec<String> = columns.iter().map(|column| escape(column.name)).collect();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    let width =
        |at: usize| std::iter::once(&head).chain(&rows).map(|line| line[at].width()).max().unwrap_or(0);
    let full: Vec<usize> = (0..columns.len()).map(width).collect();
    let widths = fit(columns, &full, room);
    let mut text = String::new();
    add_line(&mut text, columns, &widths, &head, false);
    rows.iter().for_each(|row| add_line(&mut text, columns, &widths, row, colored));
    text
}

/// Returns the width of each column; none if it is dropped.
fn fit(columns: &[Column<'_>], full: &[usize], room: Option<usize>) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = full.iter().copied().map(Some).collect();
    let Some(room) = room else { return widths };
    let smallest = |at: usize| columns[at].width_min.min(full[at]);
    while needed((0..columns.len()).filter(|at| widths[*at].is_some()).map(smallest)) > room {
        let candidates = (0..columns.len()).filter(|at| widths[*at].is_some() && columns[*at].rank > 0);
        let Some(least) = candidates.max_by_key(|at| columns[*at].rank) else { break };
        widths[least] = None;
    }
    while needed(widths.iter().copied().flatten()) > room {
        let narrowable =
            (0..columns.len()).filter(|at| widths[*at].is_some_and(|width| width > smallest(*at)));
        let Some(widest) = narrowable.max_by_key(|at| widths[*at]) else { break };
        widths[widest] = widths[widest].map(|width| width - 1);
    }
    widths
}

/// Returns the width of a line with columns of these widths.
fn needed(widths: impl Iterator<Item = usize>) -> usize {
    widths.fold(0, |sum, width| if sum == 0 { width } else { sum + 2 + width })
}

/// Adds a line without trailing blanks.
fn add_line(
    text: &mut String,
    columns: &[Column<'_>],
    widths: &[Option<usize>],
    cells: &[String],
    colored: bool,
) {
    let mut line = String::new();
    let mut blanks = 0;
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        let Some(width) = *width else { continue };
        let style = if colored { (column.style)(cell) } else { Style::new() };
        let cell = truncate(cell, width, column.keeps_end);
        let padding = width - cell.width().min(width);
        let before = if column.is_number { padding } else { 0 };
        line.extend(std::iter::repeat_n(' ', blanks + before));
        line.push_str(&format!("{style}{cell}{style:#}"));
        blanks = 2 + padding - before;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Truncates a cell to a width, with `…` for what is left out.
fn truncate(text: &str, width: usize, keeps_end: bool) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let room = width.saturating_sub(1);
    let end = if keeps_end { take(text.chars().rev(), room / 2) } else { String::new() };
    let start = take(text.chars(), room - end.width());
    Cow::Owned(format!("{start}…{}", end.chars().rev().collect::<String>()))
}

/// Takes characters up to a width.
fn take(chars: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= room
        })
        .collect()
}

/// Returns the width of the terminal, or none if stdout is not a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
    (columns > 0).then_some(columns.into())
}

/// Returns true if tables have colours: on a terminal, unless NO_COLOR (no-color.org) is set.
fn has_colors() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[track_caller]
    fn check(columns: &[Column<'_>], cells: &[&[&str]], room: Option<usize>, expected: &str) {
        let text = format(columns, &rows(cells), room, false);
        assert_eq!(text, expected);
        if let Some(room) = room {
            assert!(text.lines().all(|line| line.width() <= room), "{text}");
        }
    }

    #[test]
    fn columns_are_narrowed_and_then_dropped_by_rank() {
        let columns = [
            Column::new("STATE").whole(),
            Column::new("NAME").shortened_to(8),
            Column::new("BYTES").number().dropped(1),
            Column::new("PEER").whole().dropped(2),
        ];
        let cells: [&[&str]; 2] =
            [&["closed", "+447700900123.pcap", "117919", "192.0.2.7"], &["open", "x", "4", "-"]];
        check(
            &columns,
            &cells,
            None,
            "\
STATE   NAME                 BYTES  PEER
closed  +447700900123.pcap  117919  192.0.2.7
open    x                        4  -
",
        );
        check(
            &columns,
            &cells,
            Some(42),
            "\
STATE   NAME             BYTES  PEER
closed  +447700…23.pcap  117919  192.0.2.7
open    x                     4  -
"
            .replace("NAME             BYTES", "NAME              BYTES")
            .as_str(),
        );
        check(
            &columns,
            &cells,
            Some(34),
            "\
STATE   NAME                 BYTES
closed  +447700900123.pcap  117919
open    x                        4
",
        );
        check(
            &columns,
            &cells,
            Some(20),
            "\
STATE   NAME
closed  +44770….pcap
open    x
",
        );
    }

    #[test]
    fn cells_are_truncated_by_display_width() {
        for (text, width, keeps_end, expected) in [
            ("abc", 3, false, "abc"),
            ("abcd", 3, false, "ab…"),
            ("日本語", 5, false, "日本…"),
            ("日本語", 4, false, "日…"),
            ("日本語", 6, false, "日本語"),
            ("abcdefgh", 5, true, "ab…gh"),
            ("日本語日", 5, true, "日…日"),
        ] {
            let cell = truncate(text, width, keeps_end);
            assert_eq!(cell, expected);
            assert!(cell.width() <= width);
        }
    }

    #[test]
    fn a_column_narrower_than_its_minimum_stays() {
        let columns = [Column::new("a"), Column::new("b")];
        for (full, room, expected) in [
            ([5, 5], 12, [5, 5]),
            ([5, 50], 30, [5, 23]),
            ([40, 50], 30, [14, 14]),
            ([40, 50], 3, [COLUMN_MIN, COLUMN_MIN]),
        ] {
            assert_eq!(fit(&columns, &full, Some(room)), expected.map(Some));
        }
    }

    #[test]
    fn styles_surround_the_cell_and_not_the_padding() {
        let columns = [
            Column::new("STATE").styled(|state| if state == "open" { GOOD } else { Style::new() }),
            Column::new("N"),
        ];
        let text = format(&columns, &rows(&[&["open", "1"], &["lost", "2"]]), None, true);
        assert_eq!(text, "STATE  N\n\u{1b}[32mopen\u{1b}[0m   1\nlost   2\n");
    }
}
