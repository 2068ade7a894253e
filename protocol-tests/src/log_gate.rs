//! The log of the broker under test is a result too: a warning, an error or a panic that the test did not expect fails
//! it.

/// Returns the WARN, ERROR and panic lines that contain none of the `expected` texts.
pub fn unexpected<'a>(lines: &'a [String], expected: &[String]) -> Vec<&'a str> {
    lines
        .iter()
        .map(String::as_str)
        .filter(|line| is_complaint(line))
        .filter(|line| !expected.iter().any(|text| line.contains(text.as_str())))
        .collect()
}

fn is_complaint(line: &str) -> bool {
    let line = &without_colours(line);
    line.split_whitespace().take(4).any(|word| matches!(word.trim_matches(['[', ']', ':']), "WARN" | "ERROR"))
        || line.contains("panicked at")
        || line.contains("\"level\":\"WARN\"")
        || line.contains("\"level\":\"ERROR\"")
}

/// Removes the colour escape sequences of a terminal.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_unless_expected() {
        let lines: Vec<String> = [
            "2026-01-01T00:00:00Z  INFO ottla: a WARN further on in a sentence is none",
            "2026-01-01T00:00:00Z  WARN ottla::network: closed 127.0.0.1: frame too large",
            "\u{1b}[2m2026-01-01T00:00:00Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m ottla::log: disk full",
            "thread 'main' panicked at src/main.rs:1:1:",
        ]
        .map(String::from)
        .to_vec();
        assert_eq!(unexpected(&lines, &[]).len(), 3);
        assert_eq!(unexpected(&lines, &["frame too large".into(), "disk full".into()]), [lines[3].as_str()]);
    }
}
