//! Assigns producer ids from blocks that the controller allocates to this broker (I6), so that most ids need no
//! request to the controller.

use std::sync::Arc;

use crate::{
    controller::{
        ApiError,
        producer_ids::{AllocateProducerIds, ProducerIdsBlock},
    },
    metadata::publisher::Publisher,
    raft::ControllerChannel,
    types::{BrokerId, ProducerId},
};

/// Assigns producer ids.
pub struct ProducerIds {
    broker_id: BrokerId,
    metadata: Arc<Publisher>,
    controller: Arc<ControllerChannel>,
    /// The unused ids of the current block. The lock is held during the request for the next block, so that many
    /// concurrent callers cause only one request.
    block: tokio::sync::Mutex<ProducerIdsBlock>,
}

impl ProducerIds {
    /// The first block is requested when the first producer needs an id.
    pub fn new(broker_id: BrokerId, metadata: Arc<Publisher>, controller: Arc<ControllerChannel>) -> Self {
        ProducerIds {
            broker_id,
            metadata,
            controller,
            block: tokio::sync::Mutex::new(ProducerIdsBlock { first: 0, count: 0 }),
        }
    }

    /// Returns an id that was never assigned before.
    ///
    /// # Errors
    /// The controller did not reply, or refused the request.
    pub async fn next(&self) -> Result<ProducerId, ApiError> {
        let mut block = self.block.lock().await;
        if block.count == 0 {
            let broker_epoch = self.metadata.image().broker(self.broker_id).map_or(-1, |broker| broker.epoch);
            let request = AllocateProducerIds { broker_id: self.broker_id, broker_epoch };
            *block = self.controller.ask(request).await?;
        }
        let id = block.first;
        block.first += 1;
        block.count -= 1;
        Ok(id)
    }
}
