//! Escapes untrusted text for a terminal, the log and error messages. Pure code.

/// Escapes control characters and characters that could hide or reorder the surrounding text on a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if needs_escape(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Returns true for characters that control a terminal, or hide or reorder text on it.
pub(crate) fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("+447700900123-2-3.pcap", "+447700900123-2-3.pcap"),
            ("a\x1b[31mb\n\t\0\u{7f}", "a\\u{1b}[31mb\\n\\t\\u{0}\\u{7f}"),
            ("\u{9b}31m \u{202e}gpj", "\\u{9b}31m \\u{202e}gpj"),
            ("käse", "käse"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }
}
