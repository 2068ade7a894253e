//! The parser of Java's `.properties` files, like `java.util.Properties.load`.

/// One setting of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first line of the setting, counted from 1.
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// Parses a file. The bytes are read as UTF-8, or, if they are invalid, as ISO 8859-1 like in Java.
pub(super) fn parse(bytes: &[u8]) -> Vec<Entry> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    logical_lines(&text).into_iter().map(|(line, text)| entry(line, &text)).collect()
}

/// Returns the logical lines, without comments and blank lines. A line that ends in an odd number of backslashes is
/// joined with the next one, whose leading white space is dropped.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let text = text.replace("\r\n", "\n");
    let mut lines = Vec::new();
    let mut natural = text.split(['\n', '\r']).zip(1..);
    while let Some((line, number)) = natural.next() {
        let line = trim_start(line);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            match natural.next() {
                Some((next, _)) => logical.push_str(trim_start(next)),
                None => break,
            }
        }
        lines.push((number, logical));
    }
    lines
}

fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// Splits at the first `=`, `:` or white space that is not escaped.
fn entry(line: usize, text: &str) -> Entry {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let ends = !escaped && (is_space(c) || c == '=' || c == ':');
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = text.split_at(end.unwrap_or(text.len()));
    let rest = trim_start(rest);
    let value = trim_start(rest.strip_prefix(['=', ':']).unwrap_or(rest));
    Entry { line, key: unescape(key), value: unescape(value) }
}

fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::with_capacity(text.len());
    // Java's strings are UTF-16, so two \u escapes may be one character.
    let mut units: Vec<u16> = Vec::new();
    let flush = |units: &mut Vec<u16>, plain: &mut String| {
        plain.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
    };
    while let Some(c) = chars.next() {
        if c == '\\' {
            match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    match u16::from_str_radix(&digits, 16) {
                        Ok(unit) => units.push(unit),
                        Err(_) => units.push(0xFFFD),
                    }
                    continue;
                }
                escaped => {
                    flush(&mut units, &mut plain);
                    plain.extend(escaped.map(|c| match c {
                        't' => '\t',
                        'n' => '\n',
                        'r' => '\r',
                        'f' => '\x0c',
                        other => other,
                    }));
                }
            }
        } else {
            flush(&mut units, &mut plain);
            plain.push(c);
        }
    }
    flush(&mut units, &mut plain);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        parse(text.as_bytes()).into_iter().map(|entry| (entry.line, entry.key, entry.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let entries = read(text);
        assert_eq!(entries.len(), 1, "{text:?}: {entries:?}");
        (entries[0].1.clone(), entries[0].2.clone())
    }

    #[test]
    fn separators_are_equals_colon_or_white_space() {
        for text in ["a.b=c d", "a.b = c d", "a.b:c d", "a.b : c d", "a.b c d", "  a.b\tc d"] {
            assert_eq!(one(text), ("a.b".into(), "c d".into()), "{text:?}");
        }
        assert_eq!(one("a.b"), ("a.b".into(), String::new()));
        assert_eq!(one("a=b=c"), ("a".into(), "b=c".into()));
        assert_eq!(one("listeners=A://:1,B://:2"), ("listeners".into(), "A://:1,B://:2".into()));
    }

    #[test]
    fn escapes_continuations_and_comments_are_javas() {
        assert_eq!(one(r"a\=b\ c=\tx\\y\u00e9\q"), ("a=b c".into(), "\tx\\y\u{e9}q".into()));
        assert_eq!(one("a = \\ud83d\\ude00"), ("a".into(), "😀".into()));
        assert_eq!(
            read("# one\n! two\n\na=1,\\\n   2,\\\n   3\nb=c\\\\\nd=e\n"),
            [(4, "a".into(), "1,2,3".into()), (7, "b".into(), "c\\".into()), (8, "d".into(), "e".into())]
        );
        assert_eq!(
            read("a=1\r\n\r\nb=2,\\\r\n 3\r\nc=4"),
            [(1, "a".into(), "1".into()), (3, "b".into(), "2,3".into()), (5, "c".into(), "4".into())]
        );
        assert_eq!(parse(b"a=\xe9")[0].value, "\u{e9}");
    }
}
