//! ListConfigResources (key 74): lists the resources that have or can have settings (KIP-1142).
//!
//! Behavior: A16. Version notes: 0 was ListClientMetricsResources and lists only client metrics.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
    },
    protocol::StrBytes,
};

use super::RequestContext;
use crate::metadata::image::{ConfigResourceType, MetadataImage};

/// All types, in the order in which Kafka lists them.
const ALL: [ConfigResourceType; 5] = [
    ConfigResourceType::Group,
    ConfigResourceType::ClientMetrics,
    ConfigResourceType::BrokerLogger,
    ConfigResourceType::Broker,
    ConfigResourceType::Topic,
];

pub(crate) async fn handle(ctx: RequestContext, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    respond(&ctx.image(), ctx.api_version, &request.resource_types)
}

fn respond(image: &MetadataImage, version: i16, asked: &[i8]) -> ListConfigResourcesResponse {
    let known: &[ConfigResourceType] = if version == 0 { &[ConfigResourceType::ClientMetrics] } else { &ALL };
    let types: Vec<ConfigResourceType> = asked.iter().map(|id| ConfigResourceType::from_id(*id)).collect();
    // linear: there are five types
    if types.iter().any(|asked| !known.contains(asked)) {
        return ListConfigResourcesResponse::default().with_error_code(ResponseError::UnsupportedVersion.code());
    }
    // linear: there are five types
    let listed = known.iter().filter(|known| types.is_empty() || types.contains(known));
    let resources = listed.flat_map(|resource_type| {
        names(image, *resource_type).into_iter().map(|name| {
            ConfigResource::default()
                .with_resource_type(resource_type.id())
                .with_resource_name(StrBytes::from_string(name))
        })
    });
    ListConfigResourcesResponse::default().with_config_resources(resources.collect())
}

/// All topics and brokers are listed, but only groups and client metrics subscriptions that have settings.
fn names(image: &MetadataImage, resource_type: ConfigResourceType) -> Vec<String> {
    match resource_type {
        ConfigResourceType::Topic => image.topics.by_name.keys().map(|name| name.to_string()).collect(),
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            image.alive_brokers().map(|broker| broker.id.to_string()).collect()
        }
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics | ConfigResourceType::Unknown => {
            let configured = image.configs.iter().filter(|(_, configs)| !configs.is_empty());
            let of_type = configured.filter(|(resource, _)| resource.resource_type == resource_type);
            of_type.map(|(resource, _)| resource.name.clone()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metadata::image;

    fn configured_image() -> MetadataImage {
        let mut image = MetadataImage::default();
        let mut set = |resource_type, name: &str, value: Option<&str>| {
            let values: BTreeMap<_, _> =
                value.map(|value| ("interval.ms".to_owned(), value.to_owned())).into_iter().collect();
            image.configs.insert(image::ConfigResource::new(resource_type, name).into(), values.into());
        };
        set(ConfigResourceType::ClientMetrics, "c", Some("100"));
        set(ConfigResourceType::Group, "g", Some("100"));
        set(ConfigResourceType::Group, "emptied", None);
        image
    }

    fn listed(version: i16, asked: &[i8]) -> Result<Vec<(i8, String)>, i16> {
        let response = respond(&configured_image(), version, asked);
        if response.error_code != 0 {
            assert!(response.config_resources.is_empty());
            return Err(response.error_code);
        }
        let resources = response.config_resources.into_iter();
        Ok(resources.map(|resource| (resource.resource_type, resource.resource_name.to_string())).collect())
    }

    #[test]
    fn a16_version_0_lists_client_metrics_only() {
        assert_eq!(listed(0, &[]), Ok(vec![(16, "c".into())]));
    }

    #[test]
    fn a16_no_types_are_all_types_and_an_unknown_one_is_refused() {
        assert_eq!(listed(1, &[]), Ok(vec![(32, "g".into()), (16, "c".into())]));
        assert_eq!(listed(1, &[32]), Ok(vec![(32, "g".into())]));
        assert_eq!(listed(1, &[2, 3]), Err(35));
    }
}
