//! The parser of config.toml: Kafka's names are dotted keys, quoted keys or nested tables.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::properties::Entry;

/// Parses a file. Returns one entry for each value; its key is the path to the value.
///
/// # Errors
/// Line and message, if the file is not TOML or a value has a type that no setting accepts.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, (usize, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_of(bytes, error.valid_up_to());
        (line, "it is not UTF-8".to_owned())
    })?;
    let table = DeTable::parse(text).map_err(|error| {
        let position = error.span().map_or(0, |span: Range<usize>| span.start);
        (line_of(bytes, position), error.message().to_owned())
    })?;
    let mut entries = Vec::new();
    flatten(bytes, "", table.get_ref(), &mut entries)?;
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn flatten(bytes: &[u8], prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) -> Result<(), (usize, String)> {
    for (name, value) in table {
        let name = name.get_ref();
        let key = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        let line = line_of(bytes, value.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => flatten(bytes, &key, inner, entries)?,
            DeValue::Array(elements) => {
                let texts: Option<Vec<String>> = elements.iter().map(|element| scalar(element.get_ref())).collect();
                let texts = texts.ok_or((line, format!("{key} contains a value of a type that no setting accepts")))?;
                entries.push(Entry { line, key, value: texts.join(",") });
            }
            other => {
                let text = scalar(other).ok_or((line, format!("{key} has a type that no setting accepts")))?;
                entries.push(Entry { line, key, value: text });
            }
        }
    }
    Ok(())
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
            Some(parsed.map_or_else(|| number.as_str().to_owned(), |parsed| parsed.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(bytes: &[u8], position: usize) -> usize {
    bytes.iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_tables_and_quoted_keys_are_the_same_settings() {
        let text = r#"
            num.partitions = 3
            "log.dirs" = "/a,/b"
            listeners = ["PLAINTEXT://:9092", "OTHER://:9093"]

            [log]
            segment.bytes = 0x100000
            cleaner.io.max.bytes.per.second = 1.5
            [log.roll]
            hours = 1_000
            [auto.create]
            topics.enable = true
        "#;
        let entries = parse(text.as_bytes()).expect("it is TOML");
        let read: Vec<_> = entries.iter().map(|e| (e.line, e.key.as_str(), e.value.as_str())).collect();
        assert_eq!(
            read,
            [
                (2, "num.partitions", "3"),
                (3, "log.dirs", "/a,/b"),
                (4, "listeners", "PLAINTEXT://:9092,OTHER://:9093"),
                (7, "log.segment.bytes", "1048576"),
                (8, "log.cleaner.io.max.bytes.per.second", "1.5"),
                (10, "log.roll.hours", "1000"),
                (12, "auto.create.topics.enable", "true"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let (line, message) = parse(b"a = 1\nb = \n").expect_err("no value");
        assert_eq!(line, 2, "{message}");
        assert_eq!(parse(b"a = 1\n\nb = 2024-01-01\n").expect_err("a date").0, 3);
        assert_eq!(parse(b"a = 1\nb = \"\xff\"\n").expect_err("not UTF-8").0, 2);
    }
}
