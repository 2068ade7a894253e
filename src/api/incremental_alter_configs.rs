//! IncrementalAlterConfigs (key 44).
//!
//! Behavior: A6. As in Apache, there are two steps: the broker runs `ConfigAdminManager.preprocess` (it checks for
//! duplicates, nulls and settings that cannot change at run time, and changes logger levels), then the controller
//! changes the settings: the broker that was asked sends it what has passed. Results are in the order of the request.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::AlterConfigsResource,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    ListenerKind, RequestContext,
    authorized::{AuthorizedConfig, Operation},
    broker_loggers,
};
use crate::{
    config::{ConfigLayers, ConfigType, Configs, broker_settings},
    controller::{
        ApiError,
        configs::{AlterOp, ConfigChange, IncrementalAlterConfigs},
        schema::validate_broker_change,
    },
    metadata::image::{ConfigResource, ConfigResourceType, MetadataImage},
    types::BrokerId,
};

pub(crate) async fn handle(
    ctx: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let image = ctx.image();
    let asked = Asked::new(&ctx);
    let layers = ctx.config_layers(&image);
    let checked = preprocess(&request.resources, |resource| {
        if ConfigResourceType::from_id(resource.resource_type) == ConfigResourceType::BrokerLogger {
            return change_loggers(&ctx, resource, request.validate_only).map(|()| None);
        }
        let (resource, changes) = check(&image, &layers, asked, resource)?;
        let authorized = authorize(&ctx, &resource)?;
        Ok(Some((authorized, (resource, changes))))
    });
    let alter = async |accepted: Vec<(AuthorizedConfig<'_>, _)>| {
        let (authorized, resources): (Vec<_>, Vec<_>) = accepted.into_iter().unzip();
        let rest = || {
            let resources = only(&request.resources, resources.iter().map(|(resource, _)| resource));
            IncrementalAlterConfigsRequest::default()
                .with_resources(resources)
                .with_validate_only(request.validate_only)
        };
        if let Some(response) = ctx.forward_rest(rest).await? {
            return Ok(response.responses.into_iter().map(|of| result(of.error_code, of.error_message)).collect());
        }
        let controller_request = IncrementalAlterConfigs { resources, validate_only: request.validate_only };
        authorized[0].controller().incremental_alter_configs(controller_request).await
    };
    let errors = alter_accepted(checked, alter).await;
    let answers = request.resources.into_iter().zip(errors);
    let answers = answers.map(|(resource, error)| answer(resource.resource_type, resource.resource_name, error));
    IncrementalAlterConfigsResponse::default().with_responses(answers.collect())
}

fn answer(resource_type: i8, resource_name: StrBytes, error: Option<ApiError>) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse::default()
        .with_resource_type(resource_type)
        .with_resource_name(resource_name)
        .with_error_code(error.as_ref().map_or(0, ApiError::code))
        .with_error_message(error.as_ref().and_then(super::error_message))
}

/// Which node checks a change of a broker's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The broker itself, which must be the named one.
    Broker(BrokerId),
    /// The controller: the named broker has checked it, by its own static settings.
    Controller(BrokerId),
}

impl Asked {
    pub(super) fn new(ctx: &RequestContext) -> Asked {
        let node_id = ctx.config().node_id;
        match ctx.connection.kind {
            ListenerKind::Broker => Asked::Broker(node_id),
            ListenerKind::Controller => Asked::Controller(node_id),
        }
    }

    /// Apache: `validateResourceNameIsCurrentNodeId`; the empty name means all brokers. Returns whether this node must
    /// check the settings.
    pub(super) fn checks_broker(self, name: &str) -> Result<bool, ApiError> {
        let (Asked::Broker(node_id) | Asked::Controller(node_id)) = self;
        match name.parse::<BrokerId>() {
            _ if name.is_empty() => Ok(true),
            Err(_) => Err(ApiError::invalid_request(format!("Node id must be an integer, but it is: {name}"))),
            Ok(id) if id == node_id => Ok(true),
            Ok(_) if matches!(self, Asked::Controller(_)) => Ok(false),
            Ok(_) => {
                Err(ApiError::invalid_request(format!("Unexpected broker id, expected {node_id}, but received {name}")))
            }
        }
    }
}

/// The resources of a request that have passed, in its order. Those that it repeats have not passed.
pub(super) fn only<'a, R: Altered + Clone>(
    resources: &[R],
    passed: impl Iterator<Item = &'a ConfigResource>,
) -> Vec<R> {
    let passed: BTreeSet<(i8, &str)> = passed.map(|resource| (resource.resource_type.id(), &*resource.name)).collect();
    resources.iter().filter(|resource| passed.contains(&resource.resource())).cloned().collect()
}

/// The controller's result for one resource.
pub(super) fn result(error_code: i16, message: Option<StrBytes>) -> Result<(), ApiError> {
    match ResponseError::try_from_code(error_code) {
        Some(error) => Err(ApiError { error, message: message.map(|message| message.to_string()) }),
        None => Ok(()),
    }
}

/// Checks that the client may change the settings of a resource.
pub(super) fn authorize<'a>(
    ctx: &'a RequestContext,
    resource: &ConfigResource,
) -> Result<AuthorizedConfig<'a>, ApiError> {
    ctx.config_resource(Operation::AlterConfigs, resource.resource_type, &resource.name).map_err(ApiError::code_only)
}

/// A resource in a request of either Alter API.
pub(super) trait Altered {
    fn resource(&self) -> (i8, &str);
}

impl Altered for AlterConfigsResource {
    fn resource(&self) -> (i8, &str) {
        (self.resource_type, &self.resource_name)
    }
}

/// Checks each resource separately. Resources that the request names more than once are refused.
pub(super) fn preprocess<R: Altered, T>(
    resources: &[R],
    check: impl Fn(&R) -> Result<T, ApiError>,
) -> Vec<Result<T, ApiError>> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for resource in resources {
        if !seen.insert(resource.resource()) {
            repeated.insert(resource.resource());
        }
    }
    let checked = |resource: &R| match repeated.contains(&resource.resource()) {
        true => Err(ApiError::invalid_request("Each resource must appear at most once.")),
        false => check(resource),
    };
    resources.iter().map(checked).collect()
}

/// Sends all resources that passed the check to the controller in one request; `None` is a resource that needs no
/// controller. Returns the error of each resource, in order.
pub(super) async fn alter_accepted<T>(
    checked: Vec<Result<Option<T>, ApiError>>,
    alter: impl AsyncFnOnce(Vec<T>) -> Result<Vec<Result<(), ApiError>>, ApiError>,
) -> Vec<Option<ApiError>> {
    let mut errors = vec![None; checked.len()];
    let (mut accepted, mut places) = (Vec::new(), Vec::new());
    for (place, result) in checked.into_iter().enumerate() {
        match result {
            Ok(None) => {}
            Ok(Some(resource)) => {
                accepted.push(resource);
                places.push(place);
            }
            Err(error) => errors[place] = Some(error),
        }
    }
    if accepted.is_empty() {
        return errors;
    }
    let results = alter(accepted).await.unwrap_or_else(|error| vec![Err(error); places.len()]);
    for (place, result) in places.into_iter().zip(results) {
        errors[place] = result.err();
    }
    errors
}

/// Apache: the part of `preprocess` that both Alter APIs share.
pub(super) fn check_keys<'a>(keys: impl Iterator<Item = &'a str>, null: Vec<&str>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(ApiError::invalid_request("Error due to duplicate config keys"));
        }
    }
    if null.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid_request(format!("Null value not supported for : {}", null.join(", "))))
    }
}

/// Returns the resource type if the controller can alter it.
pub(super) fn resource_type(id: i8) -> Result<ConfigResourceType, ApiError> {
    match ConfigResourceType::from_id(id) {
        ConfigResourceType::BrokerLogger | ConfigResourceType::Unknown => {
            Err(ApiError::invalid_request(format!("Unknown resource type {id}")))
        }
        known => Ok(known),
    }
}

/// Changes logger levels. They apply to this process only and are not stored.
fn change_loggers(ctx: &RequestContext, requested: &AlterConfigsResource, validate_only: bool) -> Result<(), ApiError> {
    check_changes(requested)?;
    let cluster = ctx.cluster(Operation::AlterConfigs)?;
    let changes = broker_loggers::check(cluster.loggers(), ctx.config().node_id, requested)?;
    if !validate_only && !changes.is_empty() {
        cluster.loggers().change(&changes);
        tracing::info!(?changes, "changed the levels of loggers");
    }
    Ok(())
}

/// Apache: the checks that come before those of the resource type.
fn check_changes(requested: &AlterConfigsResource) -> Result<(), ApiError> {
    const DELETE: i8 = 1;
    let null = requested.configs.iter().filter(|config| config.config_operation != DELETE && config.value.is_none());
    check_keys(
        requested.configs.iter().map(|config| config.name.as_str()),
        null.map(|config| config.name.as_str()).collect(),
    )
}

fn check(
    image: &MetadataImage,
    layers: &ConfigLayers<'_>,
    asked: Asked,
    requested: &AlterConfigsResource,
) -> Result<(ConfigResource, Vec<ConfigChange>), ApiError> {
    check_changes(requested)?;
    let resource = ConfigResource::new(resource_type(requested.resource_type)?, requested.resource_name.to_string());
    let changes = requested
        .configs
        .iter()
        .map(|config| {
            let op = AlterOp::from_id(config.config_operation).ok_or_else(|| {
                ApiError::invalid_request(format!("Unknown operations type {}", config.config_operation))
            })?;
            Ok((config.name.to_string(), op, config.value.as_ref().map(|value| value.to_string())))
        })
        .collect::<Result<Vec<ConfigChange>, ApiError>>()?;
    if resource.resource_type == ConfigResourceType::Broker && asked.checks_broker(&resource.name)? {
        let current = image.config(&resource).cloned().unwrap_or_default();
        validate_broker_change(layers, &with_changes(current, &changes)?, !resource.name.is_empty())?;
    }
    Ok((resource, changes))
}

/// Apache: `prepareIncrementalConfigs`.
fn with_changes(mut configs: Configs, changes: &[ConfigChange]) -> Result<BTreeMap<String, String>, ApiError> {
    for (name, op, value) in changes {
        match op {
            AlterOp::Set => _ = configs.insert(name.clone(), value.clone().unwrap_or_default()),
            AlterOp::Delete => _ = configs.remove(name),
            AlterOp::Append | AlterOp::Subtract => {
                let definition = broker_settings().get(name.as_str());
                let definition =
                    definition.ok_or_else(|| ApiError::invalid_config(format!("Unknown config name: {name}")))?;
                if definition.value_type != ConfigType::List {
                    let what = if *op == AlterOp::Append { "append" } else { "subtract" };
                    return Err(ApiError::invalid_config(format!(
                        "Config value {what} is not allowed for config key: {name}"
                    )));
                }
                let current =
                    configs.get(name).cloned().or_else(|| definition.default_value().map(|value| value.to_string()));
                let changed = crate::controller::configs::change_list(
                    &current.unwrap_or_default(),
                    *op,
                    value.as_deref().unwrap_or_default(),
                );
                configs.insert(name.clone(), changed);
            }
        }
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::incremental_alter_configs_request::AlterableConfig,
        protocol::{Decodable, Encodable},
    };

    use super::*;
    use crate::config::StaticConfigs;

    fn resource(
        kind: i8,
        name: &'static str,
        configs: &[(&'static str, i8, Option<&'static str>)],
    ) -> AlterConfigsResource {
        let config = |(name, op, value): &(&'static str, i8, Option<&'static str>)| {
            AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_config_operation(*op)
                .with_value(value.map(StrBytes::from_static_str))
        };
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(configs.iter().map(config).collect())
    }

    fn checked(requested: &AlterConfigsResource) -> Result<(ConfigResource, Vec<ConfigChange>), ApiError> {
        let statics = StaticConfigs::default();
        check(&MetadataImage::default(), &ConfigLayers::of_static(&statics), Asked::Broker(1), requested)
    }

    fn refused(requested: AlterConfigsResource) -> (i16, String) {
        let error = checked(&requested).unwrap_err();
        (error.code(), error.message.unwrap())
    }

    #[test]
    fn a6_duplicate_keys_nulls_and_unknown_operations_answer_42() {
        let twice = &[("a", 0, Some("1")), ("a", 0, Some("2"))];
        assert_eq!(refused(resource(2, "t", twice)), (42, "Error due to duplicate config keys".into()));
        let null = &[("a", 0, None), ("b", 2, None), ("c", 1, None)];
        assert_eq!(refused(resource(2, "t", null)), (42, "Null value not supported for : a, b".into()));
        assert_eq!(refused(resource(2, "t", &[("a", 9, Some("1"))])), (42, "Unknown operations type 9".into()));
        assert_eq!(refused(resource(3, "t", &[])), (42, "Unknown resource type 3".into()));
    }

    #[test]
    fn a6_the_same_resource_twice_is_refused_both_times_and_others_are_not() {
        let resources = [resource(2, "t", &[]), resource(2, "u", &[]), resource(2, "t", &[])];
        let results = preprocess(&resources, checked);
        let messages: Vec<_> = results.into_iter().map(|result| result.err().and_then(|error| error.message)).collect();
        let twice = Some("Each resource must appear at most once.".to_owned());
        assert_eq!(messages, [twice.clone(), None, twice]);
    }

    #[test]
    fn a6_a_broker_only_takes_its_own_settings_and_only_dynamic_ones() {
        assert!(checked(&resource(4, "1", &[("log.retention.ms", 0, Some("5"))])).is_ok());
        assert!(checked(&resource(4, "", &[("log.retention.ms", 0, Some("5"))])).is_ok());
        assert_eq!(refused(resource(4, "2", &[])), (42, "Unexpected broker id, expected 1, but received 2".into()));
        assert_eq!(refused(resource(4, "x", &[])), (42, "Node id must be an integer, but it is: x".into()));
        assert_eq!(
            refused(resource(4, "1", &[("node.id", 0, Some("5"))])),
            (42, "Cannot update these configs dynamically: [node.id]".into())
        );
        let append = refused(resource(4, "", &[("log.retention.ms", 2, Some("5"))]));
        assert_eq!(append, (40, "Config value append is not allowed for config key: log.retention.ms".into()));
        assert_eq!(refused(resource(4, "", &[("nope", 2, Some("5"))])), (40, "Unknown config name: nope".into()));
    }

    #[test]
    fn a6_answers_encode_at_every_version() {
        for version in 0..=1 {
            let responses = vec![
                answer(2, StrBytes::from_static_str("t"), Some(ApiError::invalid_config("no"))),
                answer(4, StrBytes::default(), None),
            ];
            let mut bytes = BytesMut::new();
            IncrementalAlterConfigsResponse::default().with_responses(responses).encode(&mut bytes, version).unwrap();
            let decoded = IncrementalAlterConfigsResponse::decode(&mut bytes, version).unwrap();
            assert_eq!((decoded.responses[0].error_code, &decoded.responses[1].error_message), (40, &None));
        }
    }
}
