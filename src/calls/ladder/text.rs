//! A ladder as text for a terminal.

use unicode_width::UnicodeWidthStr;

use super::{Arrow, Content, Ladder, Row, StreamSpan};
use crate::runtime::terminal::escape;

/// Width of the times on the left, as in `20:59:41.102`.
const TIME_WIDTH: usize = 12;

/// Distance between two columns: arrows need room for their text, and longer ones are harder to follow.
const GAP_MIN: usize = 22;
const GAP_MAX: usize = 42;

/// How a ladder is shown.
pub(crate) struct RenderOptions<'o> {
    /// Width of the terminal in columns.
    pub width: usize,
    /// Formats a time (nanoseconds since 1970) as `20:59:41.102`.
    pub clock: &'o dyn Fn(i64) -> String,
}

/// Renders a ladder. With too many columns for the width, each row is a line with both addresses.
pub(crate) fn render(ladder: &Ladder, options: &RenderOptions<'_>) -> String {
    let arrows = ladder.columns.len().saturating_sub(1);
    let gap = options.width.saturating_sub(TIME_WIDTH + 3).checked_div(arrows).unwrap_or(0).min(GAP_MAX);
    let mut text = String::new();
    if gap >= GAP_MIN {
        let grid = Grid { gap, columns: ladder.columns.len() };
        add_line(&mut text, &grid.header(ladder));
    }
    for (index, row) in ladder.rows.iter().enumerate() {
        let time = match index {
            0 => (options.clock)(row.time_ns),
            _ => format!(
                "+{}.{:03}",
                row.since_previous_ns / 1_000_000_000,
                row.since_previous_ns / 1_000_000 % 1_000
            ),
        };
        let time = format!("{time:>TIME_WIDTH$}");
        if gap >= GAP_MIN {
            let grid = Grid { gap, columns: ladder.columns.len() };
            grid.add_row(&mut text, &time, row, options.width);
        } else {
            add_line(&mut text, &format!("{time}  {}", list_row(row)));
        }
    }
    if ladder.rows_omitted > 0 {
        add_line(&mut text, &format!("{:TIME_WIDTH$}  {} more rows", "", ladder.rows_omitted));
    }
    for note in &ladder.notes {
        add_line(&mut text, &format!("note: {}", escape(&note.text)));
    }
    text
}

fn add_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Positions of the columns.
struct Grid {
    gap: usize,
    columns: usize,
}

impl Grid {
    /// Position of a column's bar.
    fn bar(&self, column: usize) -> usize {
        TIME_WIDTH + 2 + column * self.gap
    }

    /// Names of the columns: the first one starts at its bar, the last one ends there, the others are centred.
    fn header(&self, ladder: &Ladder) -> String {
        let mut line = String::new();
        for (index, column) in ladder.columns.iter().enumerate() {
            let name = shorten(&escape(&column.name), self.gap - 2);
            let start = match index {
                0 => self.bar(0),
                last if last + 1 == self.columns => (self.bar(last) + 1).saturating_sub(name.width()),
                middle => self.bar(middle).saturating_sub(name.width() / 2),
            };
            let blanks = start.saturating_sub(line.width()).max(usize::from(index > 0));
            line.extend(std::iter::repeat_n(' ', blanks));
            line.push_str(&name);
        }
        line
    }

    fn add_row(&self, text: &mut String, time: &str, row: &Row, width: usize) {
        let label = label(&row.content);
        let mut line = format!("{time}  ");
        match row.arrow {
            Some(arrow) if arrow.from != arrow.to => line.push_str(&self.arrow(arrow, &label, &row.content)),
            _ => line.push_str(&format!("{} {label}", self.bars().trim_end())),
        }
        let details = details(row);
        if !details.is_empty() {
            match line.width() + 2 + details.width() <= width {
                true => line.push_str(&format!("  {details}")),
                false => {
                    add_line(text, &line);
                    line = format!("{:TIME_WIDTH$}  | {details}", "");
                }
            }
        }
        add_line(text, &line);
    }

    fn bars(&self) -> String {
        let blanks = " ".repeat(self.gap - 1);
        std::iter::repeat_n("|", self.columns).collect::<Vec<_>>().join(&blanks)
    }

    /// The columns' bars with an arrow between two of them.
    fn arrow(&self, arrow: Arrow, label: &str, content: &Content) -> String {
        let (left, right) = (arrow.from.min(arrow.to), arrow.from.max(arrow.to));
        let shaft = if matches!(content, Content::Stream(_)) { '=' } else { '-' };
        let room = (right - left) * self.gap - 1;
        let label = shorten(label, room.saturating_sub(6));
        let shafts = room.saturating_sub(label.width() + 3);
        let before: String = std::iter::repeat_n(shaft, shafts / 2).collect();
        let after: String = std::iter::repeat_n(shaft, shafts - shafts / 2).collect();
        let drawn = match arrow.from < arrow.to {
            true => format!("{before} {label} {after}>"),
            false => format!("<{before} {label} {after}"),
        };
        let blanks = " ".repeat(self.gap - 1);
        let mut line = String::new();
        for column in 0..self.columns {
            line.push('|');
            match column {
                column if column == left => line.push_str(&drawn),
                column if column > left && column < right => {
                    line.pop();
                }
                column if column + 1 < self.columns => line.push_str(&blanks),
                _ => {}
            }
        }
        line
    }
}

/// Text of an arrow.
fn label(content: &Content) -> String {
    match content {
        Content::Message { text, has_sdp, count, .. } => {
            let sdp = if *has_sdp { " (SDP)" } else { "" };
            let times = if *count > 1 { format!(" x{count}") } else { String::new() };
            format!("{}{sdp}{times}", escape(text))
        }
        Content::Stream(StreamSpan { codec, packets, duration_ns, is_encrypted, .. }) => {
            let kind = if *is_encrypted { "SRTP" } else { "RTP" };
            let tenths = duration_ns / 100_000_000;
            format!("{kind} {} {packets} packets, {}.{} s", escape(codec), tenths / 10, tenths % 10)
        }
        Content::Digit { digit, is_info, .. } => {
            format!("{} {digit}", if *is_info { "INFO digit" } else { "digit" })
        }
        Content::Omitted { messages } => format!("{messages} more messages"),
    }
}

/// What does not fit on the arrow.
fn details(row: &Row) -> String {
    match (&row.content, row.arrow) {
        (Content::Stream(stream), Some(arrow)) => {
            let Arrow { source, destination, .. } = arrow;
            let StreamSpan { lost, jitter_max_ms, .. } = stream;
            format!("{source} -> {destination}, lost {lost}, jitter {jitter_max_ms:.1} ms")
        }
        _ => String::new(),
    }
}

fn list_row(row: &Row) -> String {
    let label = label(&row.content);
    match (row.arrow, &row.content) {
        (Some(_), Content::Stream(_)) => format!("{label}  {}", details(row)),
        (Some(Arrow { source, destination, .. }), _) => format!("{source} -> {destination}  {label}"),
        (None, _) => label,
    }
}

/// Cuts a text to a width, with `~` for the rest.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    while short.width() + 1 > width && short.pop().is_some() {}
    short.push('~');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::ladder::LadderOptions;
    use crate::calls::samples::answered_call;
    use crate::calls::view::{Call, Finding};

    fn rendered(width: usize) -> String {
        let call = Call { findings: vec![Finding::OneWay], ..answered_call() };
        let ladder = Ladder::of(&call, &LadderOptions::default());
        render(&ladder, &RenderOptions { width, clock: &|_| "20:59:41.102".to_owned() })
    }

    #[test]
    fn two_endpoints_in_80_columns() {
        let expected = "\
              192.0.2.1:5060              192.0.2.2:5060
20:59:41.102  |------------- INVITE (SDP) ------------->|
      +0.198  |<------------- 180 Ringing --------------|
      +2.004  |<------------ 200 OK (SDP) --------------|
      +0.002  |------------------ ACK ----------------->|
      +0.018  |==== RTP PCMA 500 packets, 9.9 s =======>|
              | 192.0.2.1:6000 -> 192.0.2.2:6002, lost 0, jitter 0.3 ms
     +10.002  |------------------ BYE ----------------->|
      +0.002  |<---------------- 200 OK ----------------|
note: RTP from one side only: the callee is silent
";
        let text = rendered(80);
        let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        // Arrows differ in their shafts only by where the text is put.
        let bare =
            |text: &str| lines(text).iter().map(|line| line.replace(['-', '='], "")).collect::<Vec<_>>();
        assert_eq!(bare(&text), bare(expected));
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_a_list() {
        let text = rendered(30);
        assert!(text.contains("192.0.2.1:5060 -> 192.0.2.2:5060  INVITE (SDP)"), "{text}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde~");
        assert_eq!(shorten("日本語日本語", 6), "日本~");
    }
}
