//! DescribeConfigs (key 32): settings with their sources, synonyms, types and documentation.
//!
//! Behavior: A5; which value holds and why is `config/layers.rs`'s. Entries come sorted by name.
//! Version notes: 3+ tells types and documentation.
//! Deviations: the documentation texts are our own; the broker's loggers are the modules of Ottla.

use std::collections::BTreeSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
    protocol::StrBytes,
};

use super::{
    RequestContext,
    authorized::{AuthorizedCluster, Denied, Operation},
    broker_loggers,
    errors::error_message,
};
use crate::{
    config::{self, ConfigEntry, ConfigLayers, ConfigSource, Configs},
    controller::{ApiError, topics::validate_topic_name},
    loggers::Loggers,
    metadata::image::{ConfigResource, ConfigResourceType, MetadataImage},
    types::BrokerId,
};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let image = ctx.image();
    let cluster = ctx.cluster(Operation::DescribeConfigs);
    let describer = Describer {
        image: &image,
        layers: ctx.config_layers(&image),
        loggers: cluster.as_ref().map(AuthorizedCluster::loggers).map_err(|denied| *denied),
        node_id: ctx.config().node_id,
    };
    describer.respond(&request)
}

/// What the answers are made from.
struct Describer<'a> {
    image: &'a MetadataImage,
    layers: ConfigLayers<'a>,
    loggers: Result<&'a Loggers, Denied>,
    node_id: BrokerId,
}

impl Describer<'_> {
    fn respond(&self, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
        // Kafka gives up on the whole request at a type it does not know.
        let unknown = request
            .resources
            .iter()
            .find(|resource| ConfigResourceType::from_id(resource.resource_type) == ConfigResourceType::Unknown);
        let refused = unknown.map(|resource| {
            let name = &resource.resource_name;
            ApiError::invalid_request(format!("Unexpected resource type UNKNOWN for resource {name}"))
        });
        // An answer is a thousand times what it takes to ask: nobody needs the same one twice.
        let mut seen = BTreeSet::new();
        let results = request.resources.iter().map(|resource| {
            let is_new = seen.insert((resource.resource_type, resource.resource_name.as_str()));
            let described = match &refused {
                Some(error) => Err(error.clone()),
                None if !is_new => Err(ApiError::invalid_request("Each resource must appear at most once.")),
                None => self.describe(resource),
            };
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match described {
                Ok(entries) => result.with_configs(entries.into_iter().map(|entry| told(entry, request)).collect()),
                Err(error) => result.with_error_code(error.code()).with_error_message(error_message(&error)),
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn describe(&self, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, ApiError> {
        let keys = resource.configuration_keys.as_deref().unwrap_or_default();
        let wanted = |name: &str| keys.is_empty() || keys.iter().any(|key| key.as_str() == name);
        let name = resource.resource_name.as_str();
        let resource_type = ConfigResourceType::from_id(resource.resource_type);
        let none = Configs::new();
        let own = self.image.config(&ConfigResource::new(resource_type, name)).unwrap_or(&none);
        match resource_type {
            ConfigResourceType::Topic => {
                validate_topic_name(name)?;
                match self.image.topic(name) {
                    Some(_) => Ok(self.layers.describe_topic(own, &wanted)),
                    // Kafka's text is empty here, not null.
                    None => Err(ApiError::new(ResponseError::UnknownTopicOrPartition, "")),
                }
            }
            ConfigResourceType::Broker if name.is_empty() => Ok(self.layers.describe_cluster_default(&wanted)),
            ConfigResourceType::Broker => {
                self.check_broker_id(name, "expected {} or empty string, but received")?;
                Ok(self.layers.describe_broker(&wanted))
            }
            ConfigResourceType::BrokerLogger if name.is_empty() => {
                Err(ApiError::invalid_request("Broker id must not be empty"))
            }
            ConfigResourceType::BrokerLogger => {
                self.check_broker_id(name, "expected {} but received")?;
                Ok(broker_loggers::describe(self.loggers?, &wanted))
            }
            ConfigResourceType::ClientMetrics if name.is_empty() => {
                Err(ApiError::invalid_request("Client metrics subscription name must not be empty"))
            }
            ConfigResourceType::ClientMetrics => Ok(config::describe_client_metrics(own, &wanted)),
            ConfigResourceType::Group if name.is_empty() => {
                Err(ApiError::invalid_request("Group name must not be empty"))
            }
            ConfigResourceType::Group => Ok(self.layers.describe_group(own, &wanted)),
            ConfigResourceType::Unknown => Err(ApiError::invalid_request("Unsupported resource type: UNKNOWN")),
        }
    }

    fn check_broker_id(&self, name: &str, expectation: &str) -> Result<(), ApiError> {
        match name.parse::<BrokerId>() {
            Ok(id) if id == self.node_id => Ok(()),
            Ok(_) => {
                let expectation = expectation.replace("{}", &self.node_id.to_string());
                Err(ApiError::invalid_request(format!("Unexpected broker id, {expectation} {name}")))
            }
            Err(_) => Err(ApiError::invalid_request(format!("Broker id must be an integer, but it is: {name}"))),
        }
    }
}

fn told(entry: ConfigEntry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let text = |text: Option<String>| text.map(StrBytes::from_string);
    let synonyms = entry.synonyms.into_iter().filter(|_| request.include_synonyms).map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name))
            .with_value(text(synonym.value))
            .with_source(synonym.source as i8)
    });
    let result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(entry.name))
        .with_value(text(entry.value))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(entry.is_sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(entry.config_type.map_or(0, |config_type| config_type as i8));
    if entry.source == ConfigSource::DynamicBrokerLogger {
        // Kafka sets no documentation here, which leaves the field empty rather than null.
        return result.with_documentation(Some(StrBytes::default()));
    }
    let documentation = entry.documentation.filter(|_| request.include_documentation);
    result.with_documentation(documentation.map(StrBytes::from_static_str))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;
    use crate::{config::StaticConfigs, loggers::LogLevel};

    fn resource(kind: i8, name: &'static str, keys: Option<&[&'static str]>) -> DescribeConfigsResource {
        let keys = keys.map(|keys| keys.iter().map(|key| StrBytes::from_static_str(key)).collect());
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configuration_keys(keys)
    }

    fn respond(resources: Vec<DescribeConfigsResource>, everything: bool) -> Vec<DescribeConfigsResult> {
        let (image, statics) = (MetadataImage::default(), StaticConfigs::of([("log.dirs", "/d")]));
        let loggers = Loggers::new([("root".to_owned(), LogLevel::Info)].into(), |_| {});
        let layers = ConfigLayers::of_static(&statics);
        let describer = Describer { image: &image, layers, loggers: Ok(&loggers), node_id: 1 };
        let request = DescribeConfigsRequest::default()
            .with_resources(resources)
            .with_include_synonyms(everything)
            .with_include_documentation(everything);
        describer.respond(&request).results
    }

    fn refused(kind: i8, name: &'static str) -> (i16, String) {
        let result = respond(vec![resource(kind, name, None)], false).remove(0);
        assert!(result.configs.is_empty());
        (result.error_code, result.error_message.unwrap_or_default().to_string())
    }

    // The refusals are Apache Kafka 4.3.1's answers.
    #[test]
    fn a5_resources_that_are_not_there_are_refused_in_kafkas_words() {
        assert_eq!(refused(2, "nope"), (3, String::new()));
        assert_eq!(refused(2, ""), (17, "Topic name is invalid: the empty string is not allowed".into()));
        let other = "Unexpected broker id, expected 1 or empty string, but received 2";
        assert_eq!(refused(4, "2"), (42, other.into()));
        assert_eq!(refused(4, "x"), (42, "Broker id must be an integer, but it is: x".into()));
        assert_eq!(refused(8, ""), (42, "Broker id must not be empty".into()));
        assert_eq!(refused(8, "2"), (42, "Unexpected broker id, expected 1 but received 2".into()));
        assert_eq!(refused(16, ""), (42, "Client metrics subscription name must not be empty".into()));
        assert_eq!(refused(32, ""), (42, "Group name must not be empty".into()));
        assert_eq!(refused(3, "r"), (42, "Unexpected resource type UNKNOWN for resource r".into()));
    }

    #[test]
    fn a5_synonyms_and_documentation_come_only_when_asked_for() {
        let ask = |everything| respond(vec![resource(4, "1", Some(&["log.dirs", "message.max.bytes"]))], everything);
        let plain = ask(false).remove(0).configs;
        assert_eq!(
            plain.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
            ["log.dirs", "message.max.bytes"]
        );
        assert!(plain.iter().all(|entry| entry.synonyms.is_empty() && entry.documentation.is_none()));
        assert_eq!((plain[0].config_source, plain[0].read_only, plain[0].config_type), (4, true, 7));
        assert_eq!((plain[1].config_source, plain[1].read_only, plain[1].config_type), (5, false, 3));
        let full = ask(true).remove(0).configs;
        assert_eq!(full[0].synonyms.len(), 1);
        assert!(full.iter().all(|entry| entry.documentation.is_some()));
    }

    #[test]
    fn a5_no_keys_and_an_empty_list_of_keys_are_all_keys() {
        for keys in [None, Some(&[][..])] {
            assert_eq!(respond(vec![resource(32, "g", keys)], false)[0].configs.len(), 17);
        }
        assert_eq!(respond(vec![resource(16, "c", None)], false)[0].configs.len(), 3);
        assert_eq!(respond(vec![resource(4, "", None)], false)[0].configs.len(), 0);
        let loggers = respond(vec![resource(8, "1", None)], false).remove(0).configs;
        assert!(loggers.len() > 30 && loggers.iter().all(|logger| logger.config_source == 6));
        let root = respond(vec![resource(8, "1", Some(&["root"]))], false).remove(0).configs;
        assert_eq!(root[0].value.as_deref(), Some("INFO"));
    }

    #[test]
    fn a5_answers_encode_at_every_version() {
        for version in 1..=4 {
            let results = respond(vec![resource(4, "1", None), resource(2, "nope", None)], true);
            let mut bytes = BytesMut::new();
            DescribeConfigsResponse::default().with_results(results).encode(&mut bytes, version).unwrap();
            let decoded = DescribeConfigsResponse::decode(&mut bytes, version).unwrap();
            assert!(decoded.results[0].configs.len() >= 340);
            assert_eq!(decoded.results[1].error_code, 3);
        }
    }
}
