//! The format of the settings' tables: one row defines everything about a setting.
//!
//! `settings!` makes a struct with one typed field per row. `rows!` makes a list without fields, for settings that
//! Ottla knows but does not read. Both make [`Definition`]s, which are used for parsing, DescribeConfigs, the
//! validation of changes, config.toml and the docs.

use super::value::{ConfigType, InvalidValue, Validator, Value};

/// Kafka's importance of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Whether a setting can change while the broker runs (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only at start.
    ReadOnly,
    /// At run time, for one broker at a time.
    PerBroker,
    /// At run time, for one broker or all of them.
    ClusterWide,
}

impl std::fmt::Display for UpdateMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            UpdateMode::ReadOnly => "read-only",
            UpdateMode::PerBroker => "per-broker",
            UpdateMode::ClusterWide => "cluster-wide",
        })
    }
}

/// The effect of a setting in Ottla.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The setting is used.
    Used,
    /// It is the default of a topic's setting, which is used.
    TopicDefault,
    /// It is known and checked but has no effect, for this reason.
    None(&'static str),
    /// Any value except the default is refused for this reason, since it would be dangerous to ignore it.
    Refused(&'static str),
}

/// The default value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// No value.
    Null,
    /// This text.
    Text(&'static str),
}

/// A broker setting whose value a topic gets if its own setting is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker setting's name.
    pub name: &'static str,
    /// The factor from its unit to the topic setting's unit: 3,600,000 from hours to milliseconds.
    pub factor: i64,
}

/// The definition of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// Kafka's name, or one that starts with `ottla.`.
    pub name: &'static str,
    /// The type of its values.
    pub value_type: ConfigType,
    /// The value if it is not set.
    pub default: Default,
    /// The condition that a value must meet.
    pub validator: Validator,
    /// Kafka's importance.
    pub importance: Importance,
    /// Whether it can change at run time.
    pub update: UpdateMode,
    /// Whether Kafka does not document it. It is then shown only if it is set.
    pub internal: bool,
    /// A description in one sentence.
    pub doc: &'static str,
    /// Its effect in Ottla.
    pub effect: Effect,
    /// The title of its section in config.toml and the docs.
    pub section: &'static str,
    /// The reason if the default differs from Kafka's.
    pub deviation: Option<&'static str>,
    /// The broker settings that give the default of a topic's setting; the first one that is set wins.
    pub synonyms: &'static [Synonym],
}

impl Definition {
    /// Parses and checks a text for this setting.
    ///
    /// # Errors
    /// Kafka's message.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        super::value::parse(self.name, text, self.value_type, self.validator)
    }

    /// The parsed default.
    pub fn default_value(&self) -> Option<Value> {
        match self.default {
            Default::Null => None,
            // A default that is invalid for its own row is a bug, which the tests of the table find.
            Default::Text(text) => Some(self.parse(text).unwrap_or_else(|error| panic!("{error}"))),
        }
    }

    /// Whether the value must never be shown.
    pub fn is_sensitive(&self) -> bool {
        self.value_type == ConfigType::Password
    }
}

/// A Rust type of a field for a setting.
pub(super) trait FieldType: Sized {
    /// Kafka's type of the setting.
    const TYPE: ConfigType;
    /// Converts the value. Returns `None` if the value is missing and the type needs one.
    fn take(value: Option<Value>) -> Option<Self>;
}

macro_rules! field_types {
    ($($type:ty, $kafka:ident, $variant:ident;)*) => { $(
        impl FieldType for $type {
            const TYPE: ConfigType = ConfigType::$kafka;
            fn take(value: Option<Value>) -> Option<Self> {
                match value {
                    Some(Value::$variant(value)) => Some(value),
                    _ => None,
                }
            }
        }
    )* };
}

field_types! {
    bool, Boolean, Boolean;
    i16, Short, Short;
    i32, Int, Int;
    i64, Long, Long;
    f64, Double, Double;
    String, String, Text;
    Vec<String>, List, List;
}

impl<T: FieldType> FieldType for Option<T> {
    const TYPE: ConfigType = T::TYPE;
    fn take(value: Option<Value>) -> Option<Self> {
        match value {
            None => Some(None),
            value => T::take(value).map(Some),
        }
    }
}

/// Makes a struct of typed fields and the list of their definitions. Each row is `["key"] field: type = "default",
/// validator, importance, update mode, "doc";` with `= null` for no default, and `deviation "why"` and `synonyms [..]`
/// after the doc. Rows are in sections, whose titles appear in config.toml and the docs.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $struct:ident, rows $rows:ident {
            $( section $section:literal { $(
                [$name:literal] $field:ident : $type:ty = $default:tt,
                $validator:expr, $importance:ident, $update:ident $($internal:ident)?, $doc:literal
                $(, deviation $deviation:literal)?
                $(, synonyms [$($synonym:literal * $factor:literal),*])?
                ;
            )* } )*
        }
    ) => {
        $(#[$meta])*
        pub struct $struct {
            $( $( #[doc = $doc] pub $field: $type, )* )*
        }

        /// The rows of the struct's fields.
        pub(super) const $rows: &[$crate::config::table::Definition] = &[
            $( $( $crate::config::table::definition! {
                $name, <$type as $crate::config::table::FieldType>::TYPE, $default, $validator, $importance,
                $update $($internal)?, $doc, $section, $crate::config::table::Effect::Used
                $(, deviation $deviation)? $(, synonyms [$($synonym * $factor),*])?
            }, )* )*
        ];

        impl $struct {
            /// Makes the struct. `value` returns the value of a setting by its name.
            pub(super) fn from_values(
                value: &mut dyn FnMut(&'static str) -> Option<$crate::config::value::Value>,
            ) -> Self {
                Self {
                    $( $( $field: $crate::config::table::FieldType::take(value($name))
                        .unwrap_or_else(|| panic!("{} has a value of the wrong type", $name)), )* )*
                }
            }
        }
    };
}

/// Makes a list of definitions without fields that all have the same effect. Each row is
/// `["key"] Type = "default", validator, importance, update mode, "doc";`.
macro_rules! rows {
    (
        $(#[$meta:meta])*
        $rows:ident, $section:literal, $effect:expr, {
            $(
                [$name:literal] $type:ident = $default:tt,
                $validator:expr, $importance:ident, $update:ident $($internal:ident)?, $doc:literal
                $(, deviation $deviation:literal)?
                $(, synonyms [$($synonym:literal * $factor:literal),*])?
                ;
            )*
        }
    ) => {
        $(#[$meta])*
        pub(super) const $rows: &[$crate::config::table::Definition] = &[
            $( $crate::config::table::definition! {
                $name, $crate::config::value::ConfigType::$type, $default, $validator, $importance,
                $update $($internal)?, $doc, $section, $effect
                $(, deviation $deviation)? $(, synonyms [$($synonym * $factor),*])?
            }, )*
        ];
    };
}

macro_rules! definition {
    (
        $name:literal, $type:expr, $default:tt, $validator:expr, $importance:ident,
        $update:ident $($internal:ident)?, $doc:literal, $section:expr, $effect:expr
        $(, deviation $deviation:literal)?
        $(, synonyms [$($synonym:literal * $factor:literal),*])?
    ) => {
        $crate::config::table::Definition {
            name: $name,
            value_type: $type,
            default: $crate::config::table::default!($default),
            validator: $validator,
            importance: $crate::config::table::Importance::$importance,
            update: $crate::config::table::UpdateMode::$update,
            internal: $crate::config::table::internal!($($internal)?),
            doc: $doc,
            effect: $effect,
            section: $section,
            deviation: $crate::config::table::optional!($($deviation)?),
            synonyms: &[$($($crate::config::table::Synonym { name: $synonym, factor: $factor }),*)?],
        }
    };
}

macro_rules! default {
    (null) => {
        $crate::config::table::Default::Null
    };
    ($text:literal) => {
        $crate::config::table::Default::Text($text)
    };
}

macro_rules! internal {
    () => {
        false
    };
    (internal) => {
        true
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

pub(super) use default;
pub(super) use definition;
pub(super) use internal;
pub(super) use optional;
pub(super) use rows;
pub(super) use settings;
