//! Rules of the resource type BROKER_LOGGER, for the APIs that describe and alter settings (KIP-412).
//!
//! The refusals are those of Apache's `ConfigAdminManager.validateLogLevelConfigs`. Levels and their hierarchy are in
//! `loggers.rs`.

use kafka_protocol::{error::ResponseError, messages::incremental_alter_configs_request::AlterConfigsResource};

use crate::{
    config::{ConfigEntry, ConfigSource},
    controller::{ApiError, configs::AlterOp},
    loggers::{LevelChange, LogLevel, Loggers, ROOT},
    types::BrokerId,
};

/// Returns the requested changes if all of them are valid.
pub(super) fn check(
    loggers: &Loggers,
    node_id: BrokerId,
    requested: &AlterConfigsResource,
) -> Result<Vec<LevelChange>, ApiError> {
    check_node_id(&requested.resource_name, node_id)?;
    let changes = requested.configs.iter().map(|config| {
        let value = config.value.as_deref().unwrap_or_default();
        check_change(loggers, &config.name, config.config_operation, value)
    });
    changes.collect()
}

fn check_change(loggers: &Loggers, name: &str, operation: i8, value: &str) -> Result<LevelChange, ApiError> {
    let level = match AlterOp::from_id(operation) {
        Some(AlterOp::Set) => {
            check_exists(loggers, name)?;
            Some(value.parse::<LogLevel>().map_err(|()| unsupported_level(name, value))?)
        }
        Some(AlterOp::Delete) => {
            check_exists(loggers, name)?;
            if name == ROOT {
                let message = format!("Removing the log level of the {ROOT} logger is not allowed");
                return Err(ApiError::invalid_request(message));
            }
            None
        }
        Some(AlterOp::Append) => return Err(not_allowed("APPEND")),
        Some(AlterOp::Subtract) => return Err(not_allowed("SUBTRACT")),
        // Apache fails here by accident, with the same code and no message.
        None => return Err(ApiError { error: ResponseError::UnknownServerError, message: None }),
    };
    Ok((name.to_owned(), level))
}

fn check_exists(loggers: &Loggers, name: &str) -> Result<(), ApiError> {
    if loggers.exists(name) { Ok(()) } else { Err(ApiError::invalid_config(format!("Logger {name} does not exist!"))) }
}

fn unsupported_level(name: &str, level: &str) -> ApiError {
    let valid = LogLevel::SETTABLE.map(LogLevel::as_str).join(", ");
    ApiError::invalid_config(format!(
        "Cannot set the log level of {name} to {level} as it is not a supported log level. Valid log levels are {valid}"
    ))
}

fn not_allowed(operation: &str) -> ApiError {
    ApiError::invalid_request(format!("{operation} operation is not allowed for the BROKER_LOGGER resource"))
}

fn check_node_id(name: &str, node_id: BrokerId) -> Result<(), ApiError> {
    match name.parse::<BrokerId>() {
        Err(_) => Err(ApiError::invalid_request(format!("Node id must be an integer, but it is: {name}"))),
        Ok(id) if id != node_id => {
            Err(ApiError::invalid_request(format!("Unexpected node id. Expected {node_id}, but received {name}")))
        }
        Ok(_) => Ok(()),
    }
}

/// Returns one entry per logger, with its effective level.
pub(super) fn describe(loggers: &Loggers, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
    let levels = loggers.levels().into_iter().filter(|(name, _)| wanted(name));
    levels
        .map(|(name, level)| ConfigEntry {
            name,
            value: Some(level.as_str().to_owned()),
            source: ConfigSource::DynamicBrokerLogger,
            is_sensitive: false,
            read_only: false,
            synonyms: Vec::new(),
            config_type: None,
            documentation: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::incremental_alter_configs_request::AlterableConfig, protocol::StrBytes};

    use super::*;

    fn loggers() -> Loggers {
        Loggers::new([(ROOT.to_owned(), LogLevel::Info)].into(), |_| {})
    }

    fn checked(
        name: &'static str,
        changes: &[(&'static str, i8, Option<&'static str>)],
    ) -> Result<Vec<LevelChange>, (i16, String)> {
        let config = |(name, op, value): &(&'static str, i8, Option<&'static str>)| {
            AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_config_operation(*op)
                .with_value(value.map(StrBytes::from_static_str))
        };
        let requested = AlterConfigsResource::default()
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(changes.iter().map(config).collect());
        check(&loggers(), 1, &requested).map_err(|error| (error.code(), error.message.unwrap_or_default()))
    }

    // The codes and messages are those of Apache Kafka 4.3.1.
    #[test]
    fn levels_are_refused_in_kafkas_words() {
        let levels = "Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN";
        for (change, code, message) in [
            (("nope", 0, Some("INFO")), 40, "Logger nope does not exist!".to_owned()),
            (("", 0, Some("INFO")), 40, "Logger  does not exist!".to_owned()),
            (
                ("root", 0, Some("debug")),
                40,
                format!("Cannot set the log level of root to debug as it is not a supported log level. {levels}"),
            ),
            (("root", 1, None), 42, "Removing the log level of the root logger is not allowed".to_owned()),
            (("nope", 1, None), 40, "Logger nope does not exist!".to_owned()),
            (
                ("nope", 2, Some("INFO")),
                42,
                "APPEND operation is not allowed for the BROKER_LOGGER resource".to_owned(),
            ),
            (
                ("root", 3, Some("INFO")),
                42,
                "SUBTRACT operation is not allowed for the BROKER_LOGGER resource".to_owned(),
            ),
            (("root", 9, Some("INFO")), -1, String::new()),
        ] {
            assert_eq!(checked("1", &[change]), Err((code, message.clone())));
            // One invalid change rejects the valid one before it as well.
            assert_eq!(checked("1", &[("ottla", 0, Some("WARN")), change]), Err((code, message)));
        }
        assert_eq!(checked("", &[]), Err((42, "Node id must be an integer, but it is: ".into())));
        assert_eq!(checked("x", &[]), Err((42, "Node id must be an integer, but it is: x".into())));
        assert_eq!(checked("9", &[]), Err((42, "Unexpected node id. Expected 1, but received 9".into())));
    }

    #[test]
    fn levels_are_set_and_reset() {
        let changes = [("root", 0, Some("WARN")), ("ottla.raft", 0, Some("FATAL")), ("ottla.log", 1, None)];
        let wanted = [
            ("root".to_owned(), Some(LogLevel::Warn)),
            ("ottla.raft".to_owned(), Some(LogLevel::Fatal)),
            ("ottla.log".to_owned(), None),
        ];
        assert_eq!(checked("1", &changes), Ok(wanted.to_vec()));
        let loggers = loggers();
        loggers.change(&wanted);
        let described = describe(&loggers, &|name| ["root", "ottla.raft.driver"].contains(&name));
        let told: Vec<_> =
            described.iter().map(|entry| (entry.name.as_str(), entry.value.as_deref().unwrap())).collect();
        assert_eq!(told, [("ottla.raft.driver", "FATAL"), ("root", "WARN")]);
    }
}
