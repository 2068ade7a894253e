//! DescribeConfigs (key 32): settings with their sources, synonyms, types and documentation.
//!
//! Behavior: A5; `config/layers.rs` decides which value applies. Entries are sorted by name.
//! Version notes: 3+ returns types and documentation.
//! Deviations: once the response exceeds 48 MiB, the other resources get INVALID_REQUEST; the documentation texts are
//! Ottla's own; the broker's loggers are the modules of Ottla.

use std::collections::{BTreeSet, HashSet};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeConfigsRequest,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
    protocol::{Encodable, StrBytes},
};

use super::{
    EncodeError, RequestContext, ResponseBody,
    answer_bounds::AnswerBudget,
    answers::AnswerFields,
    authorized::{AuthorizedConfig, Denied, Operation},
    broker_loggers,
    errors::error_message,
};
use crate::{
    config::{self, ConfigEntry, ConfigLayers, ConfigSource, Configs},
    controller::{ApiError, topics::validate_topic_name},
    loggers::Loggers,
    metadata::image::{ConfigResource, ConfigResourceType, MetadataImage},
    protocol::{part::Part, wire::Writer},
    types::BrokerId,
};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeConfigsRequest) -> DescribedConfigs {
    let image = ctx.image();
    let authorize = |resource: &DescribeConfigsResource| {
        let resource_type = ConfigResourceType::from_id(resource.resource_type);
        ctx.config_resource(Operation::DescribeConfigs, resource_type, &resource.resource_name)
    };
    let describer =
        Describer { image: &image, layers: ctx.config_layers(&image), node_id: ctx.config().node_id, authorize };
    describer.respond(&request, ctx.api_version, AnswerBudget::new(&ctx)).await
}

/// Proof that the client may read the settings of a resource.
trait DescribeAuthorization {
    fn loggers(&self) -> Result<&Loggers, Denied>;
}

impl DescribeAuthorization for AuthorizedConfig<'_> {
    fn loggers(&self) -> Result<&Loggers, Denied> {
        AuthorizedConfig::loggers(self)
    }
}

/// The response. Each resource is encoded at once, because the structs would take many times the memory.
pub(crate) struct DescribedConfigs {
    throttle_time_ms: i32,
    error_codes: Vec<i16>,
    full: Vec<Bytes>,
    last: BytesMut,
    fault: Option<EncodeError>,
}

/// Results are collected in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

impl DescribedConfigs {
    fn new() -> Self {
        DescribedConfigs {
            throttle_time_ms: 0,
            error_codes: Vec::new(),
            full: Vec::new(),
            last: BytesMut::new(),
            fault: None,
        }
    }

    /// Adds a result and returns its size in bytes.
    fn push(&mut self, result: &DescribeConfigsResult, version: i16) -> usize {
        let before = self.last.len();
        if let Err(error) = result.encode(&mut self.last, version) {
            self.fault = Some(EncodeError(error));
        }
        let bytes = self.last.len() - before;
        self.error_codes.push(result.error_code);
        if self.last.len() >= PIECE_BYTES {
            self.full.push(self.last.split().freeze());
        }
        bytes
    }
}

impl AnswerFields for DescribedConfigs {
    fn set_throttle_time_ms(&mut self, throttle_time_ms: i32) {
        self.throttle_time_ms = throttle_time_ms;
    }

    fn error_codes(&self, each: &mut dyn FnMut(i16)) {
        self.error_codes.iter().copied().for_each(each);
    }
}

impl ResponseBody for DescribedConfigs {
    fn encode_body(self, version: i16) -> Result<Vec<Part>, EncodeError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let is_flexible = version >= FIRST_FLEXIBLE;
        let mut start = Writer::new(is_flexible, 16);
        start.i32(self.throttle_time_ms);
        start.count(self.error_codes.len());
        let mut end = Writer::new(is_flexible, 1);
        end.no_tags();
        let pieces = self.full.into_iter().chain([self.last.freeze()]);
        let whole = [start.into_bytes()].into_iter().chain(pieces).chain([end.into_bytes()]);
        Ok(whole.filter(|piece| !piece.is_empty()).map(Part::Bytes).collect())
    }
}

const FIRST_FLEXIBLE: i16 = 4;
const RESPONSE_TOO_LARGE: &str = "The answer would be too large; ask for fewer resources at a time.";

/// Describes resources from the metadata image and the broker's settings.
struct Describer<'a, F> {
    image: &'a MetadataImage,
    layers: ConfigLayers<'a>,
    node_id: BrokerId,
    /// Checks that the client may read the settings of a resource.
    authorize: F,
}

impl<R: DescribeAuthorization, F: Fn(&DescribeConfigsResource) -> Result<R, ResponseError>> Describer<'_, F> {
    async fn respond(
        &self,
        request: &DescribeConfigsRequest,
        version: i16,
        mut budget: AnswerBudget,
    ) -> DescribedConfigs {
        // Kafka refuses the whole request if one resource type is unknown.
        let mut types = request.resources.iter();
        // linear: runs once per request
        let unknown =
            types.find(|resource| ConfigResourceType::from_id(resource.resource_type) == ConfigResourceType::Unknown);
        let refused = unknown.map(|resource| {
            let name = &resource.resource_name;
            ApiError::invalid_request(format!("Unexpected resource type UNKNOWN for resource {name}"))
        });
        // A result is about a thousand times larger than its entry in the request, so a resource is described only
        // once.
        let (mut answer, mut seen) = (DescribedConfigs::new(), BTreeSet::new());
        for resource in &request.resources {
            let is_new = seen.insert((resource.resource_type, resource.resource_name.as_str()));
            let described = match &refused {
                Some(error) => Err(error.clone()),
                None if !is_new => Err(ApiError::invalid_request("Each resource must appear at most once.")),
                None if !budget.has_room() => Err(ApiError::invalid_request(RESPONSE_TOO_LARGE)),
                None => {
                    (self.authorize)(resource).map_err(ApiError::from).and_then(|right| self.describe(resource, &right))
                }
            };
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            let result = match described {
                Ok(entries) => {
                    result.with_configs(entries.into_iter().map(|entry| to_response_entry(entry, request)).collect())
                }
                Err(error) => result.with_error_code(error.code()).with_error_message(error_message(&error)),
            };
            budget.add(answer.push(&result, version)).await;
        }
        answer
    }

    fn describe(&self, resource: &DescribeConfigsResource, right: &R) -> Result<Vec<ConfigEntry>, ApiError> {
        let keys = resource.configuration_keys.as_deref().unwrap_or_default();
        let keys: HashSet<&str> = keys.iter().map(|key| key.as_str()).collect();
        let wanted = |name: &str| keys.is_empty() || keys.contains(name);
        let name = resource.resource_name.as_str();
        let resource_type = ConfigResourceType::from_id(resource.resource_type);
        let none = Configs::new();
        let own = self.image.config(&ConfigResource::new(resource_type, name)).unwrap_or(&none);
        match resource_type {
            ConfigResourceType::Topic => {
                validate_topic_name(name)?;
                match self.image.topic(name) {
                    Some(_) => Ok(self.layers.describe_topic(own, &wanted)),
                    // Kafka's message is "" here, not null.
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
                Ok(broker_loggers::describe(right.loggers()?, &wanted))
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

fn to_response_entry(entry: ConfigEntry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
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
        // Kafka does not set the documentation of loggers, so the field is "" and not null.
        return result.with_documentation(Some(StrBytes::default()));
    }
    let documentation = entry.documentation.filter(|_| request.include_documentation);
    result.with_documentation(documentation.map(StrBytes::from_static_str))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::DescribeConfigsResponse, protocol::Decodable};

    use super::*;
    use crate::{api::answer_bounds::tests::budget, config::StaticConfigs, loggers::LogLevel};

    impl DescribeAuthorization for &Loggers {
        fn loggers(&self) -> Result<&Loggers, Denied> {
            Ok(self)
        }
    }

    fn resource(kind: i8, name: &'static str, keys: Option<&[&'static str]>) -> DescribeConfigsResource {
        let keys = keys.map(|keys| keys.iter().map(|key| StrBytes::from_static_str(key)).collect());
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configuration_keys(keys)
    }

    fn encoded(
        resources: Vec<DescribeConfigsResource>,
        everything: bool,
        version: i16,
        budget: AnswerBudget,
    ) -> BytesMut {
        let (image, statics) = (MetadataImage::default(), StaticConfigs::of([("log.dirs", "/d")]));
        let loggers = Loggers::new([("root".to_owned(), LogLevel::Info)].into(), |_| {});
        let layers = ConfigLayers::of_static(&statics);
        let describer = Describer { image: &image, layers, node_id: 1, authorize: |_: &_| Ok(&loggers) };
        let request = DescribeConfigsRequest::default()
            .with_resources(resources)
            .with_include_synonyms(everything)
            .with_include_documentation(everything);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(describer.respond(&request, version, budget));
        let mut bytes = BytesMut::new();
        for part in answer.encode_body(version).unwrap() {
            let Part::Bytes(piece) = part else { panic!("the response must be in memory") };
            bytes.extend_from_slice(&piece);
        }
        bytes
    }

    fn respond(resources: Vec<DescribeConfigsResource>, everything: bool) -> Vec<DescribeConfigsResult> {
        let mut bytes = encoded(resources, everything, 4, budget(1 << 30));
        DescribeConfigsResponse::decode(&mut bytes, 4).unwrap().results
    }

    fn refused(kind: i8, name: &'static str) -> (i16, String) {
        let result = respond(vec![resource(kind, name, None)], false).remove(0);
        assert!(result.configs.is_empty());
        (result.error_code, result.error_message.unwrap_or_default().to_string())
    }

    // The codes and messages are those of Apache Kafka 4.3.1.
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
    fn a5_only_what_the_client_may_see_is_described() {
        let (image, statics) = (MetadataImage::default(), StaticConfigs::default());
        let loggers = Loggers::new(Default::default(), |_| {});
        let authorize = |resource: &DescribeConfigsResource| match resource.resource_type {
            4 | 8 => Err(ResponseError::ClusterAuthorizationFailed),
            _ => Ok(&loggers),
        };
        let describer = Describer { image: &image, layers: ConfigLayers::of_static(&statics), node_id: 1, authorize };
        let resources = [resource(4, "1", None), resource(8, "1", None), resource(32, "g", None)].to_vec();
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(describer.respond(&request, 4, budget(1 << 30)));
        assert_eq!(answer.error_codes, [31, 31, 0]);
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
            let resources = vec![resource(4, "1", None), resource(2, "nope", None)];
            let mut bytes = encoded(resources, true, version, budget(1 << 30));
            let decoded = DescribeConfigsResponse::decode(&mut bytes, version).unwrap();
            assert!(decoded.results[0].configs.len() >= 340);
            assert_eq!(decoded.results[1].error_code, 3);
            assert!(bytes.is_empty(), "the decoder must read every byte");
        }
    }

    #[test]
    fn a_large_answer_is_made_in_pieces_and_refuses_what_goes_beyond_its_bound() {
        const BOUND: usize = 2 << 20;
        let resources = (0..2_000)
            .map(|number| resource(32, "", None).with_resource_name(StrBytes::from_string(format!("group-{number}"))));
        let mut bytes = encoded(resources.collect(), true, 4, budget(BOUND));
        assert!(bytes.len() < BOUND + (1 << 20), "{} bytes", bytes.len());
        let results = DescribeConfigsResponse::decode(&mut bytes, 4).unwrap().results;
        assert_eq!((results.len(), results[0].error_code, results[1_999].error_code), (2_000, 0, 42));
        assert!(results[1_999].error_message.as_ref().unwrap().contains("too large"));
    }
}
