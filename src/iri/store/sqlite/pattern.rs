//! Pure: patterns with `*` and `?`.

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Piece {
    Text(String),
    One,
    Any,
}

/// A pattern that values are held against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Vec<Piece>);

impl Pattern {
    /// What begins so.
    pub fn prefix(prefix: &str) -> Pattern {
        let mut pattern = Pattern(Vec::new());
        prefix.chars().for_each(|c| pattern.push(c));
        pattern.0.push(Piece::Any);
        pattern
    }

    /// `*` any characters, `?` one; a backslash before either means itself.
    pub fn wildcard(text: &str) -> Pattern {
        let mut pattern = Pattern(Vec::new());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if pattern.0.last() == Some(&Piece::Any) => {}
                '*' => pattern.0.push(Piece::Any),
                '?' => pattern.0.push(Piece::One),
                '\\' => pattern.push(chars.next().unwrap_or('\\')),
                c => pattern.push(c),
            }
        }
        pattern
    }

    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.0.push(Piece::Text(c.into())),
        }
    }

    /// The same in lower case.
    pub fn lowercase(self) -> Pattern {
        let lower = |piece| match piece {
            Piece::Text(text) => Piece::Text(text.to_lowercase()),
            other => other,
        };
        Pattern(self.0.into_iter().map(lower).collect())
    }

    /// The bytes that all begin with.
    pub fn head(&self) -> &[u8] {
        match self.0.first() {
            Some(Piece::Text(text)) => text.as_bytes(),
            _ => &[],
        }
    }

    /// True if whatever begins with [`head`](Self::head) fits.
    pub fn is_prefix(&self) -> bool {
        matches!(&self.0[..], [Piece::Any] | [Piece::Text(_), Piece::Any])
    }

    /// True for `*`.
    pub fn fits_all(&self) -> bool {
        self.0 == [Piece::Any]
    }

    /// True if the value fits. What is no UTF-8 does not.
    pub fn fits(&self, value: &[u8]) -> bool {
        std::str::from_utf8(value).is_ok_and(|value| fit(&self.0, value))
    }
}

/// Goes back to the last `*` alone, which is enough, so time is at most the product of both lengths.
fn fit(pieces: &[Piece], value: &str) -> bool {
    let (mut at, mut rest) = (0, value);
    let mut star: Option<(usize, &str)> = None;
    loop {
        let stepped = match pieces.get(at) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Piece::Any) => {
                star = Some((at + 1, rest));
                Some(rest)
            }
            Some(Piece::One) => rest.chars().next().map(|c| &rest[c.len_utf8()..]),
            Some(Piece::Text(text)) => rest.strip_prefix(text.as_str()),
        };
        if let Some(after) = stepped {
            (at, rest) = (at + 1, after);
            continue;
        }
        let Some((behind, from)) = star else { return false };
        let Some(c) = from.chars().next() else { return false };
        star = Some((behind, &from[c.len_utf8()..]));
        (at, rest) = (behind, &from[c.len_utf8()..]);
    }
}

/// True if a name fits a pattern in which only `*` means something.
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(mut left) = name.strip_prefix(head) else { return false };
            let mut parts = rest.split('*').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    return left.ends_with(part);
                }
                let Some(at) = left.find(part) else { return false };
                left = &left[at + part.len()..];
            }
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_fit_or_not() {
        let cases = [
            ("972*", "972598294121", true),
            ("972*", "0972", false),
            ("*-scanner", "friendly-scanner", true),
            ("f?iend*sc*er", "friendly-scanner", true),
            ("?", "é", true),
            ("?", "", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b", "aab", true),
            ("*a*b", "aabc", false),
            ("", "", true),
            ("**", "", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(Pattern::wildcard(pattern).fits(value.as_bytes()), expected, "{pattern} {value}");
        }
        assert!(Pattern::prefix("a*").fits(b"a*b") && !Pattern::prefix("a*").fits(b"ab"));
    }

    #[test]
    fn names_fit_or_not() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a*", "a", true),
            ("*", "", true),
            ("l*-2*6", "logs-2026", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
