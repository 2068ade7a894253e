//! AlterClientQuotas (key 49).
//!
//! Behavior: A11; quotas are stored. Either all changes of an entity are made or none.
//! Deviations: quotas are not enforced yet; an ip entity must look like an address or a host name, where Kafka
//! resolves the name.

use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse,
        alter_client_quotas_request::EntityData as RequestedEntity,
        alter_client_quotas_response::{EntityData, EntryData},
    },
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation};
use crate::controller::{
    ApiError,
    client_quotas::{AlterClientQuotas, AlterClientQuotasReply, QuotaAlteration},
};

pub(crate) async fn handle(ctx: RequestContext, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let entities = request.entries.iter().map(|entry| entry.entity.clone()).collect();
    let reply = async {
        ctx.cluster(Operation::AlterConfigs)?.controller().alter_client_quotas(controller_request(request)).await
    }
    .await;
    response(entities, reply)
}

fn controller_request(request: AlterClientQuotasRequest) -> AlterClientQuotas {
    let alterations = request.entries.into_iter().map(|entry| QuotaAlteration {
        entity: entry
            .entity
            .into_iter()
            .map(|part| (part.entity_type.to_string(), part.entity_name.map(|name| name.to_string())))
            .collect(),
        ops: entry.ops.into_iter().map(|op| (op.key.to_string(), (!op.remove).then_some(op.value))).collect(),
    });
    AlterClientQuotas { alterations: alterations.collect(), validate_only: request.validate_only }
}

fn response(
    entities: Vec<Vec<RequestedEntity>>,
    reply: Result<AlterClientQuotasReply, ApiError>,
) -> AlterClientQuotasResponse {
    let entries = match reply {
        Ok(results) => {
            let entry = |(entity, result): (crate::metadata::image::ClientQuotaEntity, Result<(), ApiError>)| {
                let text = StrBytes::from_string;
                let parts = entity.into_iter().map(|(kind, name)| part(text(kind), name.map(text))).collect();
                entry(parts, result.err())
            };
            results.into_iter().map(entry).collect()
        }
        Err(error) => {
            let parts = |entity: Vec<RequestedEntity>| {
                entity.into_iter().map(|requested| part(requested.entity_type, requested.entity_name)).collect()
            };
            entities.into_iter().map(|entity| entry(parts(entity), Some(error.clone()))).collect()
        }
    };
    AlterClientQuotasResponse::default().with_entries(entries)
}

fn part(kind: StrBytes, name: Option<StrBytes>) -> EntityData {
    EntityData::default().with_entity_type(kind).with_entity_name(name)
}

fn entry(entity: Vec<EntityData>, error: Option<ApiError>) -> EntryData {
    EntryData::default()
        .with_error_code(error.as_ref().map_or(0, ApiError::code))
        .with_error_message(error.as_ref().and_then(super::error_message))
        .with_entity(entity)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;
    use crate::metadata::image::ClientQuotaEntity;

    #[test]
    fn a11_answers_encode_at_every_version() {
        for version in 0..=1 {
            let entity = ClientQuotaEntity::from([("user".into(), None), ("client-id".into(), Some("c".into()))]);
            let reply = Ok(vec![(entity, Err(ApiError::invalid_request("Invalid configuration key x")))]);
            let mut bytes = BytesMut::new();
            response(vec![], reply).encode(&mut bytes, version).unwrap();
            let decoded = AlterClientQuotasResponse::decode(&mut bytes, version).unwrap();
            assert_eq!(decoded.entries[0].error_code, 42);
            assert_eq!(decoded.entries[0].entity.len(), 2);
        }
    }
}
