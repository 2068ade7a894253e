//! Changes of the stored client quotas (Apache: `ClientQuotaControlManager`). Quotas are not enforced yet.

use std::collections::{BTreeMap, BTreeSet};

use super::{ApiError, Step, StepContext, check_records};
use crate::metadata::{
    image::{ClientQuotaEntity, MetadataImage, quota_entity_data},
    records::{ClientQuotaRecord, MetadataRecord},
};

pub const USER: &str = "user";
pub const CLIENT_ID: &str = "client-id";
pub const IP: &str = "ip";

/// The changes of one entity's quotas.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaAlteration {
    /// Entity type and name; None is the default of the type.
    pub entity: Vec<(String, Option<String>)>,
    /// Key and new value; None removes it.
    pub ops: Vec<(String, Option<f64>)>,
}

/// AlterClientQuotas.
#[derive(Debug, Clone, Default)]
pub struct AlterClientQuotas {
    pub alterations: Vec<QuotaAlteration>,
    pub validate_only: bool,
}

impl AlterClientQuotas {
    /// The altered entities, without duplicates.
    pub fn entities(&self) -> impl Iterator<Item = ClientQuotaEntity> {
        let entities = self.alterations.iter().map(|alteration| alteration.entity.iter().cloned().collect());
        entities.collect::<BTreeSet<ClientQuotaEntity>>().into_iter()
    }
}

/// One result per entity, in the order in which the request first names them.
pub type AlterClientQuotasReply = Vec<(ClientQuotaEntity, Result<(), ApiError>)>;

/// A11: sets and removes client quotas.
pub fn alter_client_quotas(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: AlterClientQuotas,
) -> Step<AlterClientQuotasReply> {
    let mut records = Vec::new();
    let mut reply: AlterClientQuotasReply = Vec::new();
    let mut positions: BTreeMap<ClientQuotaEntity, usize> = BTreeMap::new();
    for alteration in request.alterations {
        // If an entity type is named twice, the last entry wins, as in Kafka.
        let entity: ClientQuotaEntity = alteration.entity.into_iter().collect();
        if let Some(position) = positions.get(&entity) {
            reply[*position].1 =
                Err(ApiError::invalid_request(format!("Ignoring duplicate entity {}", describe(&entity))));
            continue;
        }
        let result = alter_entity(image, &entity, &alteration.ops);
        positions.insert(entity.clone(), reply.len());
        reply.push((entity, result.map(|mut new| records.append(&mut new))));
    }
    if let Err(error) = check_records(image, context.settings, &records) {
        return Step::reply(reply.into_iter().map(|(entity, _)| (entity, Err(error.clone()))).collect());
    }
    Step { records, reply }.without_records_if(request.validate_only)
}

/// Formats the entity like `ClientQuotaEntity.toString` in Java.
fn describe(entity: &ClientQuotaEntity) -> String {
    let entries: Vec<String> =
        entity.iter().map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("null"))).collect();
    format!("ClientQuotaEntity(entries={{{}}})", entries.join(", "))
}

fn alter_entity(
    image: &MetadataImage,
    entity: &ClientQuotaEntity,
    ops: &[(String, Option<f64>)],
) -> Result<Vec<MetadataRecord>, ApiError> {
    let mut seen = BTreeSet::new();
    for (key, _) in ops {
        if !seen.insert(key) {
            // Kafka first sets the error "Duplicate quota key" and then overwrites it with this one.
            return Err(ApiError::invalid_request(format!("Ignoring duplicate entity {}", describe(entity))));
        }
    }
    validate_entity(entity)?;
    let keys = keys_for(entity)?;
    let none = BTreeMap::new();
    let current = image.client_quotas.get(entity).unwrap_or(&none);
    let mut records = Vec::new();
    for (key, value) in ops {
        let record = |value: Option<f64>| {
            let (entity, remove) = (quota_entity_data(entity), value.is_none());
            MetadataRecord::from(ClientQuotaRecord { entity, key: key.clone(), value: value.unwrap_or(0.0), remove })
        };
        match value {
            None if current.contains_key(key) => records.push(record(None)),
            None => {}
            Some(value) => {
                validate_value(keys, key, *value)?;
                if current.get(key) != Some(value) {
                    records.push(record(Some(*value)));
                }
            }
        }
    }
    Ok(records)
}

fn validate_entity(entity: &ClientQuotaEntity) -> Result<(), ApiError> {
    if entity.is_empty() {
        return Err(ApiError::invalid_request("Invalid empty client quota entity"));
    }
    for (kind, name) in entity {
        if !matches!(kind.as_str(), USER | CLIENT_ID | IP) {
            return Err(ApiError::invalid_request(format!("Unhandled client quota entity type: {kind}")));
        }
        if name.as_deref() == Some("") {
            return Err(ApiError::invalid_request(format!("Empty {kind} not supported")));
        }
    }
    Ok(())
}

/// The keys with the upper bound of an integer quota. A key without a bound allows fractions.
type QuotaKeys = &'static [(&'static str, Option<f64>)];

const USER_AND_CLIENT_KEYS: QuotaKeys = &[
    ("producer_byte_rate", Some(i64::MAX as f64)),
    ("consumer_byte_rate", Some(i64::MAX as f64)),
    ("request_percentage", None),
    ("controller_mutation_rate", None),
];
const IP_KEYS: QuotaKeys = &[("connection_creation_rate", Some(i32::MAX as f64))];

fn keys_for(entity: &ClientQuotaEntity) -> Result<QuotaKeys, ApiError> {
    match entity.get(IP) {
        None => Ok(USER_AND_CLIENT_KEYS),
        // The missing space is also in Kafka's message.
        Some(_) if entity.len() > 1 => Err(ApiError::invalid_request(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId",
        )),
        Some(Some(ip)) if !is_ip_or_host(ip) => {
            Err(ApiError::invalid_request(format!("{ip} is not a valid IP or resolvable host.")))
        }
        Some(_) => Ok(IP_KEYS),
    }
}

/// Kafka asks the resolver. The controller must be deterministic and cannot ask a name server, so any well-formed host
/// name is accepted.
fn is_ip_or_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse::<std::net::IpAddr>().is_ok() || (!numeric && text.len() <= 253 && text.split('.').all(is_label))
}

fn validate_value(keys: QuotaKeys, key: &str, value: f64) -> Result<(), ApiError> {
    // linear: there are at most four
    let Some((_, max)) = keys.iter().find(|(name, _)| *name == key) else {
        return Err(ApiError::invalid_request(format!("Invalid configuration key {key}")));
    };
    if value <= 0.0 {
        return Err(ApiError::invalid_request(format!("Quota {key} must be greater than 0")));
    }
    let Some(max) = *max else { return Ok(()) };
    if value > max {
        let kind = if max > i32::MAX as f64 { "a LONG" } else { "an INT" };
        return Err(ApiError::invalid_request(format!("Proposed value for {key} is too large for {kind}.")));
    }
    if (value % 1.0).abs() > 1e-6 {
        return Err(ApiError::invalid_request(format!("{key} cannot be a fractional value.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    fn alteration(entity: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]) -> QuotaAlteration {
        QuotaAlteration {
            entity: entity.iter().map(|(kind, name)| (kind.to_string(), name.map(str::to_owned))).collect(),
            ops: ops.iter().map(|(key, value)| (key.to_string(), *value)).collect(),
        }
    }

    fn alter(image: &mut MetadataImage, alteration: QuotaAlteration) -> Result<usize, String> {
        let request = AlterClientQuotas { alterations: vec![alteration], validate_only: false };
        let mut step = with_context(|context| alter_client_quotas(image, context, request));
        apply(image, &step.records);
        let count = step.records.len();
        step.reply.remove(0).1.map(|()| count).map_err(|error| {
            assert_eq!(error.code(), 42);
            error.message.unwrap()
        })
    }

    #[test]
    fn a11_quotas_are_set_changed_and_removed() {
        let mut image = MetadataImage::default();
        let user = &[("user", Some("u")), ("client-id", None)][..];
        let rate = "producer_byte_rate";
        assert_eq!(
            alter(&mut image, alteration(user, &[(rate, Some(10.0)), ("request_percentage", Some(1.5))])),
            Ok(2)
        );
        assert_eq!(alter(&mut image, alteration(user, &[(rate, Some(10.0))])), Ok(0), "unchanged");
        let entity = ClientQuotaEntity::from([("user".into(), Some("u".into())), ("client-id".into(), None)]);
        assert_eq!(image.client_quotas[&entity][rate], 10.0);
        assert_eq!(alter(&mut image, alteration(user, &[(rate, None), ("request_percentage", None)])), Ok(2));
        assert!(image.client_quotas.is_empty());
        assert_eq!(alter(&mut image, alteration(user, &[(rate, None)])), Ok(0), "removing an absent key");
        assert_eq!(
            alter(&mut image, alteration(&[("ip", Some("10.0.0.1"))], &[("connection_creation_rate", Some(3.0))])),
            Ok(1)
        );
    }

    #[test]
    fn a11_thousands_of_entities_are_decided_in_time_and_more_than_one_batch_is_refused() {
        let image = MetadataImage::default();
        let alter = |entities: usize| {
            let alterations = (0..entities)
                .map(|number| alteration(&[("user", Some(&number.to_string()))], &[("producer_byte_rate", Some(1.0))]));
            let request = AlterClientQuotas { alterations: alterations.collect(), validate_only: false };
            with_context(|context| alter_client_quotas(&image, context, request))
        };
        let step = alter(10_000);
        assert_eq!(step.records.len(), 10_000);
        let step = alter(10_001);
        assert!(step.records.is_empty());
        assert!(step.reply.iter().all(|(_, result)| result.as_ref().is_err_and(|error| error.code() == 44)));
    }

    #[test]
    fn a11_bad_entities_keys_and_values_answer_42_in_kafka_s_words() {
        let mut image = MetadataImage::default();
        let rate = &[("producer_byte_rate", Some(1.0))][..];
        let user = &[("user", Some("u"))][..];
        for (entity, ops, message) in [
            (&[][..], rate, "Invalid empty client quota entity"),
            (&[("user", Some(""))], rate, "Empty user not supported"),
            (&[("group", Some("g"))], rate, "Unhandled client quota entity type: group"),
            (
                &[("ip", None), ("user", None)],
                rate,
                "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId",
            ),
            (&[("ip", Some("not an ip"))], rate, "not an ip is not a valid IP or resolvable host."),
            (&[("ip", None)], rate, "Invalid configuration key producer_byte_rate"),
            (user, &[("connection_creation_rate", Some(1.0))], "Invalid configuration key connection_creation_rate"),
            (user, &[("producer_byte_rate", Some(0.0))], "Quota producer_byte_rate must be greater than 0"),
            (user, &[("producer_byte_rate", Some(1.5))], "producer_byte_rate cannot be a fractional value."),
            (
                user,
                &[("producer_byte_rate", Some(1e19))],
                "Proposed value for producer_byte_rate is too large for a LONG.",
            ),
            (
                &[("ip", None)],
                &[("connection_creation_rate", Some(3e9))],
                "Proposed value for connection_creation_rate is too large for an INT.",
            ),
            (
                user,
                &[("request_percentage", Some(1.0)), ("request_percentage", None)],
                "Ignoring duplicate entity ClientQuotaEntity(entries={user=u})",
            ),
        ] {
            assert_eq!(alter(&mut image, alteration(entity, ops)), Err(message.to_owned()));
        }
        assert!(image.client_quotas.is_empty());
    }
}
