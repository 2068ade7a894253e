//! Producer ids from blocks that the controller gives this broker (I6), so that handing one out is
//! usually no more than counting.

use std::sync::Arc;

use crate::{
    controller::{
        ApiError,
        producer_ids::{AllocateProducerIds, ProducerIdsBlock},
    },
    metadata::publisher::Publisher,
    raft::ControllerHandle,
    types::{BrokerId, ProducerId},
};

/// Hands out producer ids.
pub struct ProducerIds {
    broker_id: BrokerId,
    metadata: Arc<Publisher>,
    controller: ControllerHandle,
    /// What is left of the present block. Held across the request for the next one, so that many
    /// who come at once ask once.
    block: tokio::sync::Mutex<ProducerIdsBlock>,
}

impl ProducerIds {
    /// Nothing is asked of the controller before the first producer comes.
    pub fn new(broker_id: BrokerId, metadata: Arc<Publisher>, controller: ControllerHandle) -> Self {
        ProducerIds {
            broker_id,
            metadata,
            controller,
            block: tokio::sync::Mutex::new(ProducerIdsBlock { first: 0, count: 0 }),
        }
    }

    /// An id that nobody was given before.
    ///
    /// # Errors
    /// The controller did not answer, or refused.
    pub async fn next(&self) -> Result<ProducerId, ApiError> {
        let mut block = self.block.lock().await;
        if block.count == 0 {
            let broker_epoch = self.metadata.image().broker(self.broker_id).map_or(-1, |broker| broker.epoch);
            let request = AllocateProducerIds { broker_id: self.broker_id, broker_epoch };
            *block = self.controller.allocate_producer_ids(request).await?;
        }
        let id = block.first;
        block.first += 1;
        block.count -= 1;
        Ok(id)
    }
}
