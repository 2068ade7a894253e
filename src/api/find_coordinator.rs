//! FindCoordinator (key 10): returns the broker that coordinates a group.
//!
//! Behavior: M7. The coordinator is the leader of the group's partition of `__consumer_offsets`; the topic is created
//! at first use. Transactions are not supported yet. Clients must fail at once; with COORDINATOR_NOT_AVAILABLE they
//! would retry until their own timeout: see [`refuse_transactions`].
//! Deviations: Apache returns COORDINATOR_NOT_AVAILABLE while the topic is being created; here the response
//! waits for it, which saves the client a retry. It also waits up to 200 ms while a broker has just closed its
//! connections and is not fenced yet. A transactional id gets INVALID_TXN_STATE (below version 4
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED) with a message that says why. Share groups have no coordinator yet.
//! Version notes: 1 key types, 4 several keys, each with its own outcome (KIP-699), 6 share groups (KIP-932).

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
    protocol::StrBytes,
};

use super::{RequestContext, groups::wire, topics};
use crate::{
    env::{LogLimit, clip},
    metadata::image::{MetadataImage, TopicImage},
    types::GROUP_METADATA_TOPIC,
};

static REFUSED_TRANSACTIONS: LogLimit = LogLimit::new();
static CREATION_FAILED: LogLimit = LogLimit::new();

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

const FIRST_WITH_KEYS: i16 = 4;
const FIRST_WITH_SHARE_GROUPS: i16 = 6;

/// Apache's message for INVALID_REQUEST.
const INVALID_REQUEST: &str = "This most likely occurs because of a request being malformed by the client library or the \
    message was sent to an incompatible broker. See the broker logs for more details.";
/// Apache's message for COORDINATOR_NOT_AVAILABLE.
const NOT_AVAILABLE: &str = "The coordinator is not available.";
const NO_TRANSACTIONS: &str = "transactions are not served by this version of Ottla";

pub(crate) async fn handle(ctx: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let keys = if ctx.api_version >= FIRST_WITH_KEYS { request.coordinator_keys } else { vec![request.key] };
    let key_type = if ctx.api_version >= 1 { request.key_type } else { GROUP };
    if !(GROUP..=SHARE).contains(&key_type) {
        return refuse_all(ctx.api_version, keys);
    }
    if ctx.image().alive_brokers().nth(1).is_some() {
        // librdkafka waits for a second if it is sent to a broker that has ended.
        ctx.liveness().settled_after_loss().await;
    }
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let node = find(&ctx, key_type, &key).await;
        found.push((key, node));
    }
    response(ctx.api_version, found)
}

/// Node id, host and port, as advertised to this client.
type Node = (i32, StrBytes, i32);

async fn find(ctx: &RequestContext, key_type: i8, key: &str) -> Result<Node, ResponseError> {
    match key_type {
        GROUP => group_coordinator(ctx, key).await,
        TRANSACTION => Err(refuse_transactions(ctx, key)),
        SHARE if ctx.api_version < FIRST_WITH_SHARE_GROUPS || !is_share_key(key) => Err(ResponseError::InvalidRequest),
        _ => Err(ResponseError::CoordinatorNotAvailable),
    }
}

/// Returns the error that makes each client give up at once, and show the message where it can. The Java client
/// (request version 4, since 3.0) and franz-go give up on any error that is not retriable; Java shows the message.
/// librdkafka (request versions up to 2) gives up on two errors only and shows the message; it retries on any other
/// error until its own timeout.
fn refuse_transactions(ctx: &RequestContext, transactional_id: &str) -> ResponseError {
    let client = ctx.connection.client_address;
    if let Some(suppressed) = REFUSED_TRANSACTIONS.admit(ctx.env().clock.monotonic()) {
        let transactional_id = clip(transactional_id);
        tracing::info!(%client, transactional_id, suppressed, "refused a transactional producer: {NO_TRANSACTIONS}");
    }
    if ctx.api_version >= FIRST_WITH_KEYS {
        ResponseError::InvalidTxnState
    } else {
        ResponseError::TransactionalIdAuthorizationFailed
    }
}

/// Whether the key has the form `group:topicUuid:partition`.
fn is_share_key(key: &str) -> bool {
    let mut parts = key.split(':').rev();
    let (Some(partition), Some(topic_id), Some(group_id)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    !group_id.is_empty()
        && parts.next().is_none()
        && topic_id.parse::<crate::types::TopicId>().is_ok()
        && partition.parse::<i32>().is_ok()
}

async fn group_coordinator(ctx: &RequestContext, group_id: &str) -> Result<Node, ResponseError> {
    let image = ctx.image();
    let image = match image.topic(GROUP_METADATA_TOPIC) {
        Some(_) => image,
        None => create_offsets_topic(ctx).await,
    };
    let topic = image.topic(GROUP_METADATA_TOPIC).ok_or(ResponseError::CoordinatorNotAvailable)?;
    let partition = ctx.partition_for_group(group_id);
    leader(ctx, &image, topic, partition).ok_or(ResponseError::CoordinatorNotAvailable)
}

async fn create_offsets_topic(ctx: &RequestContext) -> Arc<MetadataImage> {
    let topic = topics::internal_topic(ctx.config(), ctx.has_one_node(), GROUP_METADATA_TOPIC);
    match ctx.create_for_request(topic.into_iter().collect()).await {
        Err(error) => {
            if let Some(suppressed) = CREATION_FAILED.admit(ctx.env().clock.monotonic()) {
                tracing::warn!(?error, suppressed, "cannot create {GROUP_METADATA_TOPIC}");
            }
        }
        Ok(created) => {
            // Another request may have created the topic first; the caller checks the image.
            let refused = created.into_iter().filter_map(|(_, result)| result.err());
            refused.for_each(|error| tracing::debug!(?error, "{GROUP_METADATA_TOPIC} was not created"));
        }
    }
    ctx.image()
}

fn leader(ctx: &RequestContext, image: &MetadataImage, topic: &TopicImage, partition: i32) -> Option<Node> {
    let broker = image.broker(topic.partitions.get(&partition)?.leader).filter(|broker| !broker.fenced)?;
    let (host, port) = ctx.endpoint_of(broker)?;
    Some((broker.id, host, port))
}

fn response(version: i16, found: Vec<(StrBytes, Result<Node, ResponseError>)>) -> FindCoordinatorResponse {
    if version >= FIRST_WITH_KEYS {
        let coordinators = found.into_iter().map(|(key, node)| {
            let coordinator = Coordinator::default().with_key(key);
            let (coordinator, message) = match node {
                Ok((id, host, port)) => (coordinator.with_node_id(BrokerId(id)).with_host(host).with_port(port), ""),
                Err(error) => {
                    let message = if error == ResponseError::InvalidTxnState { NO_TRANSACTIONS } else { "" };
                    (coordinator.with_node_id(BrokerId(-1)).with_port(-1).with_error_code(error.code()), message)
                }
            };
            coordinator.with_error_message(Some(wire(message)))
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let (error_code, message, (id, host, port)) = match found.into_iter().next().map(|(_, node)| node) {
        Some(Ok(node)) => (0, "NONE", node),
        Some(Err(error)) => {
            let message = match error {
                ResponseError::InvalidRequest => INVALID_REQUEST,
                ResponseError::TransactionalIdAuthorizationFailed => NO_TRANSACTIONS,
                _ => NOT_AVAILABLE,
            };
            (error.code(), message, no_node())
        }
        None => (ResponseError::CoordinatorNotAvailable.code(), NOT_AVAILABLE, no_node()),
    };
    FindCoordinatorResponse::default()
        .with_error_code(error_code)
        .with_error_message(Some(wire(message)))
        .with_node_id(BrokerId(id))
        .with_host(host)
        .with_port(port)
}

/// Refuses the whole request because of an unknown key type. Every key gets the error.
fn refuse_all(version: i16, keys: Vec<StrBytes>) -> FindCoordinatorResponse {
    let refused = keys.into_iter().map(|key| (key, Err(ResponseError::InvalidRequest)));
    let mut response = response(version, refused.collect());
    for coordinator in &mut response.coordinators {
        coordinator.error_message = Some(wire(INVALID_REQUEST));
    }
    response
}

fn no_node() -> Node {
    (-1, StrBytes::new(), -1)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn m7_answers_encode_at_every_version() {
        for version in 0..=6 {
            let key = || wire("g");
            for node in [Ok((1, wire("localhost"), 9092)), Err(ResponseError::CoordinatorNotAvailable)] {
                let answer = response(version, vec![(key(), node)]);
                answer.encode(&mut bytes::BytesMut::new(), version).unwrap();
                assert_eq!(answer.coordinators.len(), usize::from(version >= 4));
            }
            refuse_all(version, vec![key()]).encode(&mut bytes::BytesMut::new(), version).unwrap();
        }
    }

    #[test]
    fn a_refusal_of_transactions_says_so_in_every_version_that_has_a_text() {
        for version in 1..=6 {
            let error = match version {
                ..4 => ResponseError::TransactionalIdAuthorizationFailed,
                _ => ResponseError::InvalidTxnState,
            };
            let answer = response(version, vec![(wire("t"), Err(error))]);
            let (code, message) = match answer.coordinators.first() {
                Some(coordinator) => (coordinator.error_code, &coordinator.error_message),
                None => (answer.error_code, &answer.error_message),
            };
            assert_eq!((code, message.as_deref()), (error.code(), Some(NO_TRANSACTIONS)));
        }
    }

    #[test]
    fn m7_share_keys_name_a_group_a_topic_id_and_a_partition() {
        assert!(is_share_key("g:AAAAAAAAAAAAAAAAAAAAAQ:0"));
        for bad in ["g", "g:x:0", "g:AAAAAAAAAAAAAAAAAAAAAQ:x", ":AAAAAAAAAAAAAAAAAAAAAQ:0"] {
            assert!(!is_share_key(bad), "{bad}");
        }
    }
}
