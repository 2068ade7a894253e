//! AlterConfigs (key 33), the older of the two alter APIs: it replaces all settings of a resource.
//!
//! Behavior: A6; the same two steps as in `incremental_alter_configs.rs`. Results are in the order of the request.

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterConfigsResource,
        alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    RequestContext,
    authorized::AuthorizedConfig,
    incremental_alter_configs::{
        Altered, Asked, alter_accepted, authorize, check_keys, only, preprocess, resource_type, result,
    },
};
use crate::{
    config::{ConfigLayers, Configs},
    controller::{ApiError, configs::LegacyAlterConfigs, schema::validate_broker_change},
    metadata::image::{ConfigResource, ConfigResourceType},
};

pub(crate) async fn handle(ctx: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let asked = Asked::new(&ctx);
    let image = ctx.image();
    let layers = ctx.config_layers(&image);
    let checked = preprocess(&request.resources, |resource| {
        let (resource, configs) = check(&layers, asked, resource)?;
        let authorized = authorize(&ctx, &resource)?;
        Ok(Some((authorized, (resource, configs))))
    });
    let alter = async |accepted: Vec<(AuthorizedConfig<'_>, _)>| {
        let (authorized, resources): (Vec<_>, Vec<_>) = accepted.into_iter().unzip();
        let rest = || {
            let resources = only(&request.resources, resources.iter().map(|(resource, _)| resource));
            AlterConfigsRequest::default().with_resources(resources).with_validate_only(request.validate_only)
        };
        if let Some(response) = ctx.forward_rest(rest).await? {
            return Ok(response.responses.into_iter().map(|of| result(of.error_code, of.error_message)).collect());
        }
        let controller_request = LegacyAlterConfigs { resources, validate_only: request.validate_only };
        authorized[0].controller().legacy_alter_configs(controller_request).await
    };
    let errors = alter_accepted(checked, alter).await;
    let answers = request.resources.into_iter().zip(errors);
    let answers = answers.map(|(resource, error)| answer(resource.resource_type, resource.resource_name, error));
    AlterConfigsResponse::default().with_responses(answers.collect())
}

fn answer(resource_type: i8, resource_name: StrBytes, error: Option<ApiError>) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse::default()
        .with_resource_type(resource_type)
        .with_resource_name(resource_name)
        .with_error_code(error.as_ref().map_or(0, ApiError::code))
        .with_error_message(error.as_ref().and_then(super::error_message))
}

impl Altered for AlterConfigsResource {
    fn resource(&self) -> (i8, &str) {
        (self.resource_type, &self.resource_name)
    }
}

fn check(
    layers: &ConfigLayers<'_>,
    asked: Asked,
    requested: &AlterConfigsResource,
) -> Result<(ConfigResource, Configs), ApiError> {
    let null =
        requested.configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.as_str()).collect();
    check_keys(requested.configs.iter().map(|config| config.name.as_str()), null)?;
    let resource = ConfigResource::new(resource_type(requested.resource_type)?, requested.resource_name.to_string());
    let configs: Configs = requested
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    if resource.resource_type == ConfigResourceType::Broker && asked.checks_broker(&resource.name)? {
        validate_broker_change(layers, &configs, !resource.name.is_empty())?;
    }
    Ok((resource, configs))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::alter_configs_request::AlterableConfig,
        protocol::{Decodable, Encodable},
    };

    use super::*;
    use crate::config::StaticConfigs;

    #[test]
    fn a6_nulls_and_what_cannot_change_are_refused() {
        let resource = |kind: i8, key: &'static str, value: Option<&'static str>| {
            let config = AlterableConfig::default()
                .with_name(StrBytes::from_static_str(key))
                .with_value(value.map(StrBytes::from_static_str));
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_static_str("1"))
                .with_configs(vec![config])
        };
        let refused = |resource| {
            check(&ConfigLayers::of_static(&StaticConfigs::default()), Asked::Broker(1), &resource)
                .unwrap_err()
                .message
                .unwrap()
        };
        assert_eq!(refused(resource(2, "a", None)), "Null value not supported for : a");
        assert_eq!(refused(resource(4, "node.id", Some("2"))), "Cannot update these configs dynamically: [node.id]");
        assert_eq!(refused(resource(8, "a", Some("2"))), "Unknown resource type 8");
        assert_eq!(
            check(&ConfigLayers::of_static(&StaticConfigs::default()), Asked::Broker(1), &resource(2, "a", Some("1")))
                .unwrap()
                .1
                .len(),
            1
        );
    }

    #[test]
    fn a6_answers_encode_at_every_version() {
        for version in 0..=2 {
            let responses = vec![answer(2, StrBytes::from_static_str("t"), Some(ApiError::invalid_config("no")))];
            let mut bytes = BytesMut::new();
            AlterConfigsResponse::default().with_responses(responses).encode(&mut bytes, version).unwrap();
            assert_eq!(AlterConfigsResponse::decode(&mut bytes, version).unwrap().responses[0].error_code, 40);
        }
    }
}
