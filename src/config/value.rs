//! Parses, checks and prints the values of settings like Kafka's `ConfigDef`.
//!
//! The messages are Kafka's own, since clients show them and tests compare them. Leaves the list of settings to the
//! tables (`table.rs`), and the precedence of values to `layers.rs`.

use std::{collections::BTreeSet, fmt};

/// The type of a setting, with its number in a DescribeConfigs response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`, in any case.
    Boolean = 1,
    /// Text, trimmed.
    String = 2,
    /// A number of 32 bits.
    Int = 3,
    /// A number of 16 bits.
    Short = 4,
    /// A number of 64 bits.
    Long = 5,
    /// A floating point number.
    Double = 6,
    /// Texts separated by commas.
    List = 7,
    /// The name of a Java class.
    Class = 8,
    /// Text that is never shown.
    Password = 9,
}

impl fmt::Display for ConfigType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConfigType::Boolean => "BOOLEAN",
            ConfigType::String => "STRING",
            ConfigType::Int => "INT",
            ConfigType::Short => "SHORT",
            ConfigType::Long => "LONG",
            ConfigType::Double => "DOUBLE",
            ConfigType::List => "LIST",
            ConfigType::Class => "CLASS",
            ConfigType::Password => "PASSWORD",
        })
    }
}

/// A parsed value. STRING, CLASS and PASSWORD are all `Text`.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Boolean(bool),
    Short(i16),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

/// Prints as Kafka's `ConfigDef.convertToString`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => value.fmt(f),
            Value::Short(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Long(value) => value.fmt(f),
            Value::Double(value) => f.write_str(&java_double(*value)),
            Value::Text(value) => f.write_str(value),
            Value::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// A value that is invalid for its setting, with the message of Kafka's `ConfigException`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidValue {
    /// The whole message, including the setting's name.
    pub message: String,
}

impl InvalidValue {
    fn new(name: &str, value: impl fmt::Display, reason: impl fmt::Display) -> Self {
        InvalidValue { message: format!("Invalid value {value} for configuration {name}: {reason}") }
    }

    fn plain(message: String) -> Self {
        InvalidValue { message }
    }
}

/// A condition that a value must meet in addition to its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Validator {
    /// No condition.
    Any,
    /// At least this number.
    AtLeast(i64),
    /// Between these numbers, both allowed.
    Between(i64, i64),
    /// Between these numbers, both allowed, for DOUBLE.
    Within(f64, f64),
    /// gzip's levels: 1 to 9, or -1 for its default.
    GzipLevel,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts, in upper or lower case.
    OneOfIgnoringCase(&'static [&'static str]),
    /// A list of texts that are not empty. Duplicates are removed. If `allowed` has texts, only these are valid.
    Distinct {
        /// The valid texts; any text if this is empty.
        allowed: &'static [&'static str],
        /// Whether the list may be empty.
        may_be_empty: bool,
    },
    /// A text that is not empty.
    NonEmpty,
    /// `*` or a list of partition:broker pairs (`ThrottledReplicaListValidator`).
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:<ISO 8601>` (KIP-932, KIP-1106).
    ShareOffsetReset,
}

impl Validator {
    fn check(self, name: &str, value: &Value) -> Result<(), InvalidValue> {
        match (self, value) {
            (Validator::Any, _) => Ok(()),
            (Validator::AtLeast(min), value) => at_least(name, value, min as f64, min),
            (Validator::Between(min, max), value) => {
                at_least(name, value, min as f64, min)?;
                at_most(name, value, max as f64, max)
            }
            (Validator::Within(min, max), value) => {
                at_least(name, value, min, trimmed(min))?;
                at_most(name, value, max, trimmed(max))
            }
            (Validator::GzipLevel, value) => match number(value) {
                n if n > 9.0 || (n < 1.0 && n != -1.0) => {
                    Err(InvalidValue::new(name, value, "Value must be between 1 and 9 or equal to -1"))
                }
                _ => Ok(()),
            },
            (Validator::OneOf(allowed), Value::Text(text)) => one_of(name, text, allowed),
            (Validator::OneOfIgnoringCase(allowed), Value::Text(text)) => {
                if allowed.iter().any(|known| known.eq_ignore_ascii_case(text)) {
                    return Ok(());
                }
                let allowed = allowed.join(", ");
                Err(InvalidValue::new(name, text, format_args!("String must be one of (case insensitive): {allowed}")))
            }
            (Validator::Distinct { allowed, may_be_empty }, Value::List(values)) => {
                distinct(name, values, allowed, may_be_empty)
            }
            (Validator::NonEmpty, Value::Text(text)) if text.is_empty() => {
                Err(InvalidValue::new(name, text, "String must be non-empty"))
            }
            (Validator::NonEmpty, _) => Ok(()),
            (Validator::ThrottledReplicas, Value::List(values)) => throttled_replicas(name, values),
            (Validator::ShareOffsetReset, Value::Text(text)) => share_offset_reset(name, text),
            (validator, value) => unreachable!("{name}: {validator:?} does not fit {value:?}"),
        }
    }
}

/// Prints as Kafka's validators describe themselves in its documentation.
impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Validator::Any => Ok(()),
            Validator::AtLeast(min) => write!(f, "[{min},...]"),
            Validator::Between(min, max) => write!(f, "[{min},...,{max}]"),
            Validator::Within(min, max) => write!(f, "[{},...,{}]", trimmed(*min), trimmed(*max)),
            Validator::GzipLevel => f.write_str("[1,...,9] or -1"),
            Validator::OneOf(allowed) => write!(f, "[{}]", allowed.join(", ")),
            Validator::OneOfIgnoringCase(allowed) => {
                write!(f, "(case insensitive) [{}]", allowed.join(", "))
            }
            Validator::Distinct { allowed: [], .. } => Ok(()),
            Validator::Distinct { allowed, .. } => write!(f, "[{}]", allowed.join(", ")),
            Validator::NonEmpty => f.write_str("non-empty string"),
            Validator::ThrottledReplicas => f.write_str("[partitionId]:[brokerId],[partitionId]:[brokerId],..."),
            Validator::ShareOffsetReset => f.write_str("[latest, earliest, by_duration:PnDTnHnMn.nS]"),
        }
    }
}

/// Reads a setting's text (`ConfigDef.parseType`), then checks it.
///
/// # Errors
/// Kafka's message, with the setting and the value.
pub(super) fn parse(
    name: &str,
    text: &str,
    value_type: ConfigType,
    validator: Validator,
) -> Result<Value, InvalidValue> {
    let mut value = parse_type(name, text, value_type)?;
    if let (Validator::Distinct { .. }, Value::List(values)) = (validator, &mut value) {
        // Duplicates are removed (KIP-1161).
        let mut seen = BTreeSet::new();
        values.retain(|value| seen.insert(value.clone()));
    }
    validator.check(name, &value)?;
    Ok(value)
}

fn parse_type(name: &str, text: &str, value_type: ConfigType) -> Result<Value, InvalidValue> {
    let trimmed = java_trim(text);
    let not_a_number = || InvalidValue::new(name, text, format_args!("Not a number of type {value_type}"));
    match value_type {
        ConfigType::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
        ConfigType::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
        ConfigType::Boolean => Err(InvalidValue::new(name, text, "Expected value to be either true or false")),
        ConfigType::Short => trimmed.parse().map(Value::Short).map_err(|_| not_a_number()),
        ConfigType::Int => trimmed.parse().map(Value::Int).map_err(|_| not_a_number()),
        ConfigType::Long => trimmed.parse().map(Value::Long).map_err(|_| not_a_number()),
        ConfigType::Double => parse_java_double(trimmed).map(Value::Double).ok_or_else(not_a_number),
        ConfigType::List => Ok(Value::List(split_list(trimmed))),
        ConfigType::String | ConfigType::Class | ConfigType::Password => Ok(Value::Text(trimmed.to_owned())),
    }
}

/// The elements of a LIST, which are separated by commas with any white space around them.
pub(super) fn split_list(text: &str) -> Vec<String> {
    let text = java_trim(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|element| java_trim(element).to_owned()).collect()
}

/// Java's `String.trim`: removes all characters up to U+0020 at both ends.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

fn number(value: &Value) -> f64 {
    match *value {
        Value::Short(n) => f64::from(n),
        Value::Int(n) => f64::from(n),
        Value::Long(n) => n as f64,
        Value::Double(n) => n,
        ref other => unreachable!("{other:?} is not a number"),
    }
}

fn at_least(name: &str, value: &Value, min: f64, shown: impl fmt::Display) -> Result<(), InvalidValue> {
    if number(value) < min {
        return Err(InvalidValue::new(name, value, format_args!("Value must be at least {shown}")));
    }
    Ok(())
}

fn at_most(name: &str, value: &Value, max: f64, shown: impl fmt::Display) -> Result<(), InvalidValue> {
    if number(value) > max {
        return Err(InvalidValue::new(name, value, format_args!("Value must be no more than {shown}")));
    }
    Ok(())
}

fn one_of(name: &str, text: &str, allowed: &[&str]) -> Result<(), InvalidValue> {
    if allowed.contains(&text) {
        return Ok(());
    }
    Err(InvalidValue::new(name, text, format_args!("String must be one of: {}", allowed.join(", "))))
}

fn distinct(name: &str, values: &[String], allowed: &[&str], may_be_empty: bool) -> Result<(), InvalidValue> {
    if values.is_empty() && !may_be_empty {
        let wanted = match allowed {
            [] => "any non-empty value".to_owned(),
            allowed => format!("[{}]", allowed.join(", ")),
        };
        let message = format!("Configuration '{name}' must not be empty. Valid values include: {wanted}");
        return Err(InvalidValue::plain(message));
    }
    for value in values {
        if value.is_empty() {
            return Err(InvalidValue::plain(format!("Configuration '{name}' values must not be empty.")));
        }
        if !allowed.is_empty() {
            one_of(name, value, allowed)?;
        }
    }
    Ok(())
}

fn throttled_replicas(name: &str, values: &[String]) -> Result<(), InvalidValue> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pair = |text: &str| text.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker));
    if values.iter().all(|value| value.is_empty() || pair(value)) || values.concat() == "*" {
        return Ok(());
    }
    let reason = format_args!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    Err(InvalidValue::new(name, format_args!("[{}]", values.join(", ")), reason))
}

fn share_offset_reset(name: &str, text: &str) -> Result<(), InvalidValue> {
    if text == "earliest" || text == "latest" || text.strip_prefix("by_duration:").is_some_and(is_iso_duration) {
        return Ok(());
    }
    let reason = format_args!(
        "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', 'latest' or of the \
         format 'by_duration:<PnDTnHnMn.nS>'."
    );
    Err(InvalidValue::new(name, text, reason))
}

/// Whether `java.time.Duration.parse` accepts the text and Kafka accepts the duration: `PnDTnHnMn.nS`, not negative.
fn is_iso_duration(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let Some(rest) = upper.strip_prefix('P') else {
        return false;
    };
    let (date, time) = match rest.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (rest, None),
    };
    let parts = |text: &str, units: &str| -> Option<usize> {
        let mut units = units.chars();
        let mut digits = String::new();
        let mut count = 0;
        for c in text.chars() {
            if c.is_ascii_digit() || (c == '.' && !digits.contains('.')) {
                digits.push(c);
                continue;
            }
            if digits.is_empty() || digits.starts_with('.') || (digits.contains('.') && c != 'S') {
                return None;
            }
            units.find(|unit| *unit == c)?;
            digits.clear();
            count += 1;
        }
        digits.is_empty().then_some(count)
    };
    match (parts(date, "D"), time.map(|time| parts(time, "HMS"))) {
        (Some(days), None) => days > 0,
        (Some(_), Some(Some(times))) => times > 0,
        _ => false,
    }
}

fn parse_java_double(text: &str) -> Option<f64> {
    match text {
        "NaN" | "+NaN" | "-NaN" => return Some(f64::NAN),
        "Infinity" | "+Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let text = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if text.chars().all(plain) { text.parse().ok() } else { None }
}

/// Java's `Double.toString`: plain digits between 0.001 and 10,000,000, otherwise scientific notation with an `E`.
fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if value == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent}")
}

/// Prints a bound of [`Validator::Within`] like Kafka's tables: `0`, `1`, `0.5`.
fn trimmed(bound: f64) -> String {
    format!("{bound}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(text: &str, value_type: ConfigType, validator: Validator) -> String {
        parse("a.key", text, value_type, validator).expect_err(text).message
    }

    #[test]
    fn values_parse_and_print_as_kafkas() {
        for (text, value_type, printed) in [
            (" TRUE ", ConfigType::Boolean, "true"),
            ("+7", ConfigType::Int, "7"),
            ("-9223372036854775808", ConfigType::Long, "-9223372036854775808"),
            (" a , b,, c ", ConfigType::List, "a,b,,c"),
            ("", ConfigType::List, ""),
            (" x y ", ConfigType::String, "x y"),
            ("1.7976931348623157E308", ConfigType::Double, "1.7976931348623157E308"),
            (".5f", ConfigType::Double, "0.5"),
            ("10000000", ConfigType::Double, "1.0E7"),
            ("1e-4", ConfigType::Double, "1.0E-4"),
            ("3", ConfigType::Double, "3.0"),
        ] {
            let value = parse("a.key", text, value_type, Validator::Any).expect(text);
            assert_eq!(value.to_string(), printed, "{text:?}");
        }
    }

    #[test]
    fn a5_a_wrong_type_is_refused_in_kafkas_words() {
        assert_eq!(
            rejected("abc", ConfigType::Long, Validator::Any),
            "Invalid value abc for configuration a.key: Not a number of type LONG"
        );
        assert_eq!(
            rejected("70000", ConfigType::Short, Validator::Any),
            "Invalid value 70000 for configuration a.key: Not a number of type SHORT"
        );
        assert_eq!(
            rejected("inf", ConfigType::Double, Validator::Any),
            "Invalid value inf for configuration a.key: Not a number of type DOUBLE"
        );
        assert_eq!(
            rejected("yes", ConfigType::Boolean, Validator::Any),
            "Invalid value yes for configuration a.key: Expected value to be either true or false"
        );
    }

    #[test]
    fn a5_a_value_out_of_bounds_is_refused_in_kafkas_words() {
        assert_eq!(
            rejected("0", ConfigType::Int, Validator::AtLeast(1)),
            "Invalid value 0 for configuration a.key: Value must be at least 1"
        );
        assert_eq!(
            rejected("1.5", ConfigType::Double, Validator::Within(0.0, 1.0)),
            "Invalid value 1.5 for configuration a.key: Value must be no more than 1"
        );
        assert_eq!(
            rejected("0", ConfigType::Int, Validator::GzipLevel),
            "Invalid value 0 for configuration a.key: Value must be between 1 and 9 or equal to -1"
        );
        assert_eq!(
            rejected("LOGAPPENDTIME", ConfigType::String, Validator::OneOf(&["CreateTime", "LogAppendTime"])),
            "Invalid value LOGAPPENDTIME for configuration a.key: String must be one of: CreateTime, LogAppendTime"
        );
        let policy = Validator::Distinct { allowed: &["compact", "delete"], may_be_empty: true };
        assert_eq!(
            rejected("nonsense", ConfigType::List, policy),
            "Invalid value nonsense for configuration a.key: String must be one of: compact, delete"
        );
        let twice = parse("a.key", "delete,delete", ConfigType::List, policy).expect("duplicates are dropped");
        assert_eq!(twice.to_string(), "delete");
        assert_eq!(rejected("delete,", ConfigType::List, policy), "Configuration 'a.key' values must not be empty.");
        let wanted = Validator::Distinct { allowed: &[], may_be_empty: false };
        assert_eq!(
            rejected("", ConfigType::List, wanted),
            "Configuration 'a.key' must not be empty. Valid values include: any non-empty value"
        );
        assert_eq!(
            rejected("0:1,x", ConfigType::List, Validator::ThrottledReplicas),
            "Invalid value [0:1, x] for configuration a.key: a.key must be the literal '*' or a list of replicas in the \
             following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        );
        for good in ["*", "0:1,2:3", ""] {
            assert!(parse("a.key", good, ConfigType::List, Validator::ThrottledReplicas).is_ok(), "{good}");
        }
    }

    #[test]
    fn share_offset_reset_takes_iso_durations() {
        let check = |text: &str| parse("a.key", text, ConfigType::String, Validator::ShareOffsetReset).is_ok();
        for good in ["earliest", "latest", "by_duration:PT1H", "by_duration:P1DT2H3M4.5S", "by_duration:pt0.1s"] {
            assert!(check(good), "{good}");
        }
        for bad in
            ["", "by_duration:", "by_duration:P", "by_duration:PT", "by_duration:1h", "by_duration:-PT1H", "none"]
        {
            assert!(!check(bad), "{bad}");
        }
    }
}
