//! The current leaders that responses name to clients that asked another broker (KIP-951), so that they need not ask
//! for metadata first.
//!
//! Apache: `KafkaApis.getCurrentLeader`. Produce from version 10 on and Fetch from version 16 on have the fields.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::error::ResponseError;

use super::RequestContext;
use crate::{
    metadata::image::{MetadataImage, TopicImage},
    protocol::produce::{LeaderIdAndEpoch, NodeEndpoint},
    types::{BrokerId, TopicId},
};

/// Collects the leaders of one response.
pub(super) struct LeaderHints<'a> {
    ctx: &'a RequestContext,
    /// Taken for the first error, which most responses do not have.
    image: Option<Arc<MetadataImage>>,
    endpoints: BTreeMap<BrokerId, NodeEndpoint>,
}

impl<'a> LeaderHints<'a> {
    pub(super) fn new(ctx: &'a RequestContext) -> Self {
        LeaderHints { ctx, image: None, endpoints: BTreeMap::new() }
    }

    /// The leader of a partition with this error, -1 if it has none. It may be this broker, if the client knows an
    /// older leader epoch. The topic is named by its id, or by its name if that is zero.
    pub(super) fn of(&mut self, error_code: i16, name: &str, id: TopicId, partition: i32) -> Option<LeaderIdAndEpoch> {
        let error = ResponseError::try_from_code(error_code)?;
        if !matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch) {
            return None;
        }
        let image = self.image.get_or_insert_with(|| self.ctx.image());
        let topic: &Arc<TopicImage> = if id.is_zero() { image.topic(name)? } else { image.topic_by_id(id)? };
        let partition = topic.partitions.get(&partition)?;
        let leader = image.broker(partition.leader).filter(|broker| !broker.fenced);
        if let Some((leader, (host, port))) = leader.and_then(|leader| Some((leader, self.ctx.endpoint_of(leader)?))) {
            let endpoint =
                || NodeEndpoint { node_id: leader.id, host: host.to_string(), port, rack: leader.rack.clone() };
            self.endpoints.entry(leader.id).or_insert_with(endpoint);
        }
        Some(LeaderIdAndEpoch { leader_id: partition.leader, leader_epoch: partition.leader_epoch })
    }

    /// The addresses of the leaders that were named.
    pub(super) fn into_endpoints(self) -> Vec<NodeEndpoint> {
        self.endpoints.into_values().collect()
    }
}
