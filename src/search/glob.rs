//! Names with wildcards, such as `logs-*`. Pure.

/// Tells whether a name matches a pattern in which `*` stands for any text.
pub(crate) fn glob_matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first occurrence is the best one: it leaves the most text for the parts after it.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_or_not() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*", "", true),
            ("*a", "ba", true),
            ("**", "x", true),
            ("a*a", "aa", true),
            ("a*a", "a", false),
            ("a*b*c", "abbc", true),
            ("*ab*b", "ab", false),
            ("l*-2*6", "logs-2026", true),
            ("", "a", false),
        ] {
            assert_eq!(glob_matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
