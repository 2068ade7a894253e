//! The form of the settings' tables: one row says everything about a setting.
//!
//! `settings!` makes a struct with one typed field per row, `rows!` a list without fields for
//! what Ottla knows but does not read. Both make [`Definition`]s, from which everything else
//! follows: parsing, DescribeConfigs, the validation of changes, config.toml, the docs.

use super::value::{ConfigType, InvalidValue, Validator, Value};

/// How much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Whether a running broker takes a new value (KIP-226).
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

/// What a setting does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is read.
    Used,
    /// It is the default of a topic's setting, which is read.
    TopicDefault,
    /// It is known and checked but changes nothing, for this reason.
    None(&'static str),
    /// A value other than the default is refused, for this reason: ignoring it would be dangerous.
    Refused(&'static str),
}

/// The value of a setting that nobody has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// None.
    Null,
    /// This text.
    Text(&'static str),
}

/// A broker setting that stands in for a topic's one that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker setting's name.
    pub name: &'static str,
    /// What one of its units is in the topic setting's unit: 3,600,000 for hours to milliseconds.
    pub factor: i64,
}

/// All there is to know of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// Kafka's name of it, or one that starts with `ottla.`.
    pub name: &'static str,
    /// Its type.
    pub value_type: ConfigType,
    /// Its default.
    pub default: Default,
    /// What a value must satisfy.
    pub validator: Validator,
    /// How much to care.
    pub importance: Importance,
    /// Whether it changes at run time.
    pub update: UpdateMode,
    /// One that Kafka does not document; shown only where it is set.
    pub internal: bool,
    /// One sentence.
    pub doc: &'static str,
    /// What it does here.
    pub effect: Effect,
    /// The title that config.toml and the docs put it under.
    pub section: &'static str,
    /// Why the default is not Kafka's.
    pub deviation: Option<&'static str>,
    /// The broker settings behind a topic's one, in the order in which they win.
    pub synonyms: &'static [Synonym],
}

impl Definition {
    /// Reads and checks a text given for this setting.
    ///
    /// # Errors
    /// Kafka's message.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        super::value::parse(self.name, text, self.value_type, self.validator)
    }

    /// The default, parsed.
    pub fn default_value(&self) -> Option<Value> {
        match self.default {
            Default::Null => None,
            // A default that its own row refuses is a bug that the first test of the table shows.
            Default::Text(text) => Some(self.parse(text).unwrap_or_else(|error| panic!("{error}"))),
        }
    }

    /// Whether the value must never be shown.
    pub fn is_sensitive(&self) -> bool {
        self.value_type == ConfigType::Password
    }
}

/// A Rust type that a setting can have as a field.
pub(super) trait FieldType: Sized {
    /// Kafka's type of it.
    const TYPE: ConfigType;
    /// Takes the value, `None` where the setting has none and the type must have one.
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

/// A struct of typed fields and the list of their definitions, from one row each:
/// `["key"] field: type = "default", validator, importance, update mode, "doc";` with
/// `= null` for no default, and `deviation "why"` and `synonyms [..]` behind the doc. Rows stand
/// in sections, whose titles config.toml and the docs show.
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
            /// Takes each field's value from where the caller finds it by the setting's name.
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

/// A list of definitions without fields that share what they do here:
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
