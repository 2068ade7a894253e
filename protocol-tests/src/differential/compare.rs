//! Compares two transcripts: which fields differ, and which of these differences are accepted.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::case::Step;

/// One field, or one complete answer, that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub case: String,
    pub ask: String,
    /// Path of the field, such as `Topics[0].ErrorCode`; empty for the whole answer.
    pub path: String,
    pub kafka: Option<Value>,
    pub ottla: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: &Option<Value>| match value {
            None => "(absent)".to_owned(),
            Some(value) => {
                let text = value.to_string();
                if text.len() > 160 { format!("{}…", text.chars().take(160).collect::<String>()) } else { text }
            }
        };
        write!(
            out,
            "{} | {} | {} | kafka {} | ottla {}",
            self.case,
            self.ask,
            self.path,
            short(&self.kafka),
            short(&self.ottla)
        )
    }
}

pub fn differences(case: &str, kafka: &[Step], ottla: &[Step]) -> Vec<Difference> {
    let mut found = Vec::new();
    for at in 0..kafka.len().max(ottla.len()) {
        let (theirs, ours) = (kafka.get(at), ottla.get(at));
        let ask = theirs.or(ours).map(|step| step.ask.clone()).unwrap_or_default();
        let mut add = |path: &str, kafka: Option<&Value>, ottla: Option<&Value>| {
            found.push(Difference {
                case: case.to_owned(),
                ask: ask.clone(),
                path: path.to_owned(),
                kafka: kafka.cloned(),
                ottla: ottla.cloned(),
            });
        };
        match (theirs, ours) {
            (Some(theirs), Some(ours)) if theirs.ask == ours.ask => walk("", &theirs.answer, &ours.answer, &mut add),
            _ => {
                // From here on the cases took different paths; one difference is enough.
                add("(step)", theirs.map(|step| &step.answer), ours.map(|step| &step.answer));
                break;
            }
        }
    }
    found
}

fn walk(path: &str, kafka: &Value, ottla: &Value, add: &mut impl FnMut(&str, Option<&Value>, Option<&Value>)) {
    match (kafka, ottla) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let more = ours.keys().filter(|name| !theirs.contains_key(*name));
            for name in theirs.keys().chain(more) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (theirs.get(name), ours.get(name)) {
                    (Some(kafka), Some(ottla)) => walk(&path, kafka, ottla, add),
                    (kafka, ottla) => add(&path, kafka, ottla),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (at, (kafka, ottla)) in theirs.iter().zip(ours).enumerate() {
                walk(&format!("{path}[{at}]"), kafka, ottla, add);
            }
        }
        _ if kafka == ottla => {}
        _ => add(path, Some(kafka), Some(ottla)),
    }
}

/// The list of wanted differences. One per line: `case | ask | path | reason`; `*` stands for any characters, commas
/// separate alternatives. Kafka's value and ours may follow the path: `*ErrorMessage: null -> *`.
#[derive(Debug)]
pub struct Accepted {
    rows: Vec<[String; 4]>,
}

impl Accepted {
    pub fn parse(text: &str) -> Result<Accepted> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rows = lines.map(|line| {
            let parts: Vec<String> = line.splitn(4, '|').map(|part| part.trim().to_owned()).collect();
            let row: [String; 4] = parts.try_into().ok().with_context(|| format!("four parts in {line:?}"))?;
            ensure!(!row[3].is_empty(), "an accepted difference needs a reason: {line:?}");
            Ok(row)
        });
        Ok(Accepted { rows: rows.collect::<Result<_>>()? })
    }

    /// Returns the index of the row that accepts the difference.
    pub fn row(&self, difference: &Difference) -> Option<usize> {
        let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "(absent)".to_owned(), Value::to_string);
        let with_values = format!("{}: {} -> {}", difference.path, text(&difference.kafka), text(&difference.ottla));
        self.rows.iter().position(|[case, ask, path, _]| {
            let is_path = matches_any(path, &difference.path) || matches_any(path, &with_values);
            matches_any(case, &difference.case) && matches_any(ask, &difference.ask) && is_path
        })
    }

    /// Returns the rows whose index is not in `used`: they accept nothing any more and must be deleted.
    pub fn unused(&self, used: &[usize]) -> Vec<String> {
        let rows = self.rows.iter().enumerate().filter(|(at, _)| !used.contains(at));
        rows.map(|(_, row)| row.join(" | ")).collect()
    }
}

/// Whether the text matches one of the comma-separated patterns.
pub fn matches_any(patterns: &str, text: &str) -> bool {
    patterns.split(',').any(|pattern| matches(pattern.trim(), text))
}

/// Whether the text matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(answer: Value) -> Step {
        Step { ask: "Fetch v4".into(), answer }
    }

    #[test]
    fn a_field_that_differs_is_named_by_its_path() {
        let kafka = step(json!({"Topics": [{"Partitions": [{"ErrorCode": 0}]}]}));
        let ottla = step(json!({"Topics": [{"Partitions": [{"ErrorCode": 1}]}]}));
        let found = differences("c", &[kafka], &[ottla]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "Topics[0].Partitions[0].ErrorCode");
    }

    #[test]
    fn a_missing_step_is_a_difference() {
        assert_eq!(differences("c", &[step(json!(1))], &[]).len(), 1);
    }

    #[test]
    fn an_accepted_row_needs_a_reason_and_unused_rows_show() {
        assert!(Accepted::parse("a | b | c |").is_err());
        let accepted = Accepted::parse("c | Fetch v* | *ErrorCode | because").unwrap();
        let difference = &differences("c", &[step(json!({"ErrorCode": 0}))], &[step(json!({"ErrorCode": 1}))])[0];
        assert_eq!(accepted.row(difference), Some(0));
        assert_eq!(accepted.unused(&[]), ["c | Fetch v* | *ErrorCode | because"]);
    }
}
