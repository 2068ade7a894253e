//! Allocation of producer ids to brokers, in blocks (Apache: `ProducerIdControlManager`).

use kafka_protocol::error::ResponseError;

use super::{ApiError, Step, StepContext, brokers::check_broker_epoch};
use crate::{
    metadata::{image::MetadataImage, records::ProducerIdsRecord},
    types::{BrokerId, ProducerId},
};

/// Apache: `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`.
pub const PRODUCER_ID_BLOCK_SIZE: i32 = 1000;

/// AllocateProducerIds.
#[derive(Debug, Clone)]
pub struct AllocateProducerIds {
    pub broker_id: BrokerId,
    pub broker_epoch: i64,
}

/// The ids from `first` to `first + count - 1`, which are never allocated again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdsBlock {
    pub first: ProducerId,
    pub count: i32,
}

pub type AllocateProducerIdsReply = Result<ProducerIdsBlock, ApiError>;

pub fn allocate_producer_ids(
    image: &MetadataImage,
    _: &mut StepContext<'_>,
    request: AllocateProducerIds,
) -> Step<AllocateProducerIdsReply> {
    if let Err(error) = check_broker_epoch(image, request.broker_id, request.broker_epoch) {
        return Step::reply(Err(error));
    }
    let first = image.next_producer_id;
    let Some(next_producer_id) = first.checked_add(i64::from(PRODUCER_ID_BLOCK_SIZE)) else {
        return Step::reply(Err(ApiError::code_only(ResponseError::UnknownServerError)));
    };
    let record =
        ProducerIdsRecord { broker_id: request.broker_id, broker_epoch: request.broker_epoch, next_producer_id };
    Step { records: vec![record.into()], reply: Ok(ProducerIdsBlock { first, count: PRODUCER_ID_BLOCK_SIZE }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    #[test]
    fn blocks_follow_one_another_and_need_the_broker_s_epoch() {
        let mut image = image_with_brokers(&[1]);
        let mut allocate = |broker_epoch| {
            let step = with_context(|context| {
                allocate_producer_ids(&image, context, AllocateProducerIds { broker_id: 1, broker_epoch })
            });
            apply(&mut image, &step.records);
            step.reply
        };
        assert_eq!(allocate(5), Ok(ProducerIdsBlock { first: 0, count: 1000 }));
        assert_eq!(allocate(5), Ok(ProducerIdsBlock { first: 1000, count: 1000 }));
        let stale = ApiError::new(ResponseError::StaleBrokerEpoch, "Expected broker epoch 5, but got broker epoch 4");
        assert_eq!(allocate(4), Err(stale));
    }
}
