//! Reads the topics of a consumer's subscription (`ConsumerProtocolSubscription`). The broker reads no other part of a
//! member's metadata. Offsets of subscribed topics do not expire and cannot be deleted.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::codec::{CodecError, Reader};

/// The most topics that are read from all different subscriptions of a group. If there are more, the group's topics
/// count as unknown.
const MAX_TOPICS: usize = 20_000;

/// The topics of a group's subscriptions, collected member by member.
#[derive(Debug, Default)]
pub(crate) struct SubscribedTopics {
    topics: BTreeSet<Arc<str>>,
    /// The lists that were already read: most members of a group subscribe to the same topics.
    lists: BTreeSet<Bytes>,
    read: usize,
}

impl SubscribedTopics {
    /// Adds the topics of one subscription. Later versions only append fields, so version 0 is read.
    pub(crate) fn add(&mut self, metadata: &Bytes) -> Result<(), CodecError> {
        let list = topic_list(metadata)?;
        if list.is_empty() || !self.lists.insert(list.clone()) {
            return Ok(());
        }
        let mut names = Reader::new(&list);
        while names.remaining() > 0 {
            self.read += 1;
            if self.read > MAX_TOPICS {
                return Err(CodecError::BadLength);
            }
            let topic = names.string()?;
            if !self.topics.contains(topic) {
                self.topics.insert(topic.into());
            }
        }
        Ok(())
    }

    pub(crate) fn into_topics(self) -> BTreeSet<Arc<str>> {
        self.topics
    }
}

/// The encoded topic names of one subscription, each with its length.
fn topic_list(metadata: &Bytes) -> Result<Bytes, CodecError> {
    let mut subscription = Reader::new(metadata);
    if subscription.int16()? < 0 {
        return Err(CodecError::BadLength);
    }
    let count = subscription.array_length(2)?;
    let start = metadata.len() - subscription.remaining();
    for _ in 0..count {
        subscription.string()?;
    }
    Ok(metadata.slice(start..metadata.len() - subscription.remaining()))
}

/// A version 0 subscription for tests and simulated members.
#[cfg(test)]
pub(crate) fn subscription(topics: &[&str]) -> Bytes {
    let mut writer = super::codec::Writer::new(0, false);
    writer.array_length(topics.len());
    topics.iter().for_each(|topic| writer.string(topic));
    writer.int32(-1);
    writer.finish().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_read_once_and_too_many_topics_are_an_error() {
        let names: Vec<String> = (0..MAX_TOPICS).map(|number| format!("t{number}")).collect();
        let most: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut subscribed = SubscribedTopics::default();
        for _ in 0..3 {
            subscribed.add(&subscription(&most)).unwrap();
        }
        subscribed.add(&subscription(&[])).unwrap();
        assert_eq!(subscribed.add(&subscription(&["t1"])), Err(CodecError::BadLength));
        assert_eq!(subscribed.into_topics().len(), MAX_TOPICS);
    }
}
