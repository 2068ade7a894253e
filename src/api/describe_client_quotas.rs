//! DescribeClientQuotas (key 48).
//!
//! Behavior: A11, from the metadata image (Apache: `ClientQuotasImage.describe`). A filter component matches an exact
//! name (0), the default entity (1) or any entity (2); `strict` excludes entities with parts that the filter lacks.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        describe_client_quotas_response::{EntityData, EntryData, ValueData},
    },
    protocol::StrBytes,
};

use super::RequestContext;
use crate::{
    controller::{
        ApiError,
        client_quotas::{CLIENT_ID, IP, USER},
    },
    metadata::image::{ClientQuotaEntity, MetadataImage},
};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    response(&ctx.image(), request)
}

fn response(image: &MetadataImage, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let response = DescribeClientQuotasResponse::default();
    match filter(&request) {
        Err(error) => {
            response.with_error_code(error.code()).with_error_message(super::error_message(&error)).with_entries(None)
        }
        Ok(filter) => {
            let matching = image.client_quotas.iter().filter(|(entity, _)| filter.matches(entity, request.strict));
            // Kafka leaves the default message here, which is "" and not null.
            response
                .with_error_message(Some(StrBytes::default()))
                .with_entries(Some(matching.map(|(entity, values)| entry(entity, values)).collect()))
        }
    }
}

/// The required name per entity type: Some(Some(name)) is exactly this name, Some(None) the default entity, None any.
struct Filter(BTreeMap<String, Option<Option<String>>>);

impl Filter {
    fn matches(&self, entity: &ClientQuotaEntity, strict: bool) -> bool {
        let part_matches = |(kind, wanted): (&String, &Option<Option<String>>)| match (entity.get(kind), wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(name), Some(wanted)) => name == wanted,
        };
        (!strict || entity.len() == self.0.len()) && self.0.iter().all(part_matches)
    }
}

fn filter(request: &DescribeClientQuotasRequest) -> Result<Filter, ApiError> {
    let mut parts = BTreeMap::new();
    for component in &request.components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return Err(ApiError::invalid_request("Invalid empty entity type."));
        }
        if parts.contains_key(kind) {
            return Err(ApiError::invalid_request(format!(
                "Entity type {kind} cannot appear more than once in the filter."
            )));
        }
        if !matches!(kind, USER | CLIENT_ID | IP) {
            return Err(ApiError::new(ResponseError::UnsupportedVersion, format!("Unsupported entity type {kind}")));
        }
        let name = component._match.as_ref();
        let misused = |what: &str| Err(ApiError::invalid_request(format!("Request specified {what}")));
        let wanted = match (component.match_type, name) {
            (0, None) => return misused("MATCH_TYPE_EXACT, but set match string to null."),
            (0, Some(name)) => Some(Some(name.to_string())),
            (1, Some(_)) => return misused("MATCH_TYPE_DEFAULT, but also specified a match string."),
            (1, None) => Some(None),
            (2, Some(_)) => return misused("MATCH_TYPE_SPECIFIED, but also specified a match string."),
            (2, None) => None,
            (unknown, _) => return Err(ApiError::invalid_request(format!("Unknown match type {unknown}"))),
        };
        parts.insert(kind.to_owned(), wanted);
    }
    if parts.contains_key(IP) && parts.len() > 1 {
        let message = "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.";
        return Err(ApiError::invalid_request(message));
    }
    Ok(Filter(parts))
}

fn entry(entity: &ClientQuotaEntity, values: &BTreeMap<String, f64>) -> EntryData {
    let text = |text: &String| StrBytes::from_string(text.clone());
    let part = |(kind, name): (&String, &Option<String>)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_ref().map(text))
    };
    let value = |(key, value): (&String, &f64)| ValueData::default().with_key(text(key)).with_value(*value);
    EntryData::default().with_entity(entity.iter().map(part).collect()).with_values(values.iter().map(value).collect())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::describe_client_quotas_request::ComponentData,
        protocol::{Decodable, Encodable},
    };

    use super::*;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::default();
        for (at, entity) in [
            vec![("user", Some("u"))],
            vec![("user", None)],
            vec![("user", Some("u")), ("client-id", Some("c"))],
            vec![("ip", Some("10.0.0.1"))],
        ]
        .into_iter()
        .enumerate()
        {
            let entity: ClientQuotaEntity =
                entity.into_iter().map(|(kind, name)| (kind.to_owned(), name.map(str::to_owned))).collect();
            image.client_quotas.insert(entity.into(), BTreeMap::from([("k".to_owned(), at as f64)]));
        }
        image
    }

    fn component(kind: &'static str, match_type: i8, name: Option<&'static str>) -> ComponentData {
        ComponentData::default()
            .with_entity_type(StrBytes::from_static_str(kind))
            .with_match_type(match_type)
            .with_match(name.map(StrBytes::from_static_str))
    }

    fn describe(components: Vec<ComponentData>, strict: bool) -> DescribeClientQuotasResponse {
        let request = DescribeClientQuotasRequest::default().with_components(components).with_strict(strict);
        let mut bytes = BytesMut::new();
        response(&image(), request).encode(&mut bytes, 1).unwrap();
        DescribeClientQuotasResponse::decode(&mut bytes, 1).unwrap()
    }

    fn found(components: Vec<ComponentData>, strict: bool) -> Vec<i32> {
        let mut found: Vec<i32> =
            describe(components, strict).entries.unwrap().iter().map(|entry| entry.values[0].value as i32).collect();
        found.sort();
        found
    }

    #[test]
    fn a11_filters_match_exactly_the_default_or_anything_and_strictly() {
        assert_eq!(found(vec![], false), [0, 1, 2, 3]);
        assert_eq!(found(vec![], true), [0i32; 0]);
        assert_eq!(found(vec![component("user", 0, Some("u"))], false), [0, 2]);
        assert_eq!(found(vec![component("user", 0, Some("u"))], true), [0]);
        assert_eq!(found(vec![component("user", 1, None)], false), [1]);
        assert_eq!(found(vec![component("user", 2, None)], false), [0, 1, 2]);
        assert_eq!(found(vec![component("user", 2, None), component("client-id", 0, Some("c"))], true), [2]);
    }

    #[test]
    fn a11_bad_filters_answer_as_kafka_s() {
        let refused = |components| {
            let response = describe(components, false);
            assert!(response.entries.is_none());
            (response.error_code, response.error_message.unwrap().to_string())
        };
        assert_eq!(refused(vec![component("", 2, None)]), (42, "Invalid empty entity type.".into()));
        assert_eq!(refused(vec![component("group", 2, None)]), (35, "Unsupported entity type group".into()));
        let twice = vec![component("user", 2, None), component("user", 1, None)];
        assert_eq!(refused(twice), (42, "Entity type user cannot appear more than once in the filter.".into()));
        assert_eq!(
            refused(vec![component("user", 0, None)]).1,
            "Request specified MATCH_TYPE_EXACT, but set match string to null."
        );
        assert_eq!(
            refused(vec![component("user", 1, Some("x"))]).1,
            "Request specified MATCH_TYPE_DEFAULT, but also specified a match string."
        );
        assert_eq!(refused(vec![component("user", 9, None)]).1, "Unknown match type 9");
        assert_eq!(refused(vec![component("ip", 2, None), component("user", 2, None)]).0, 42);
    }
}
