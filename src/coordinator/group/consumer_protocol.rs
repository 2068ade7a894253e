//! The topics inside a consumer's subscription (`ConsumerProtocolSubscription`), the only part of a member's
//! metadata that the broker looks into: offsets of topics in use neither expire nor can be deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::codec::{CodecError, Reader};

/// Adds the topics of one subscription. Later versions only append fields, so version 0 is read.
pub(crate) fn add_subscribed_topics(metadata: &[u8], topics: &mut BTreeSet<Arc<str>>) -> Result<(), CodecError> {
    let mut subscription = Reader::new(metadata);
    if subscription.int16()? < 0 {
        return Err(CodecError::BadLength);
    }
    let count = subscription.array_length(2)?;
    for _ in 0..count {
        let topic = subscription.string()?;
        if !topics.contains(topic) {
            topics.insert(topic.into());
        }
    }
    Ok(())
}

/// A version 0 subscription, as tests and simulated members write it.
#[cfg(test)]
pub(crate) fn subscription(topics: &[&str]) -> bytes::Bytes {
    let mut writer = super::codec::Writer::new(0, false);
    writer.array_length(topics.len());
    topics.iter().for_each(|topic| writer.string(topic));
    writer.int32(-1);
    writer.finish().into()
}
