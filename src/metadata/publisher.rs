//! Publishes each new image to readers and subscribers.
//!
//! Owns the current image (readers take a snapshot per request) and the order of the steps of a change: first the image
//! is swapped, then the subscribers are called in the order in which they subscribed (`broker.rs` defines that order),
//! and only then is the request for the change answered. Only the thread of the raft driver publishes.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::{delta::MetadataDelta, image::MetadataImage};
use crate::env::lock::lock;

/// A component that must act when metadata change.
pub trait Subscriber: Send + Sync {
    /// Handles a change. Readers already see `image`; `delta` has the changes since the last call. Runs on the metadata
    /// thread, so every response of the controller waits for it.
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta);
}

/// The current image and its subscribers.
#[derive(Default)]
pub struct Publisher {
    image: ArcSwap<MetadataImage>,
    subscribers: Mutex<Vec<Arc<dyn Subscriber>>>,
}

impl Publisher {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the current image, which is immutable.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// Adds a subscriber after the existing ones. Before this returns, the subscriber is called with the whole current
    /// image.
    pub fn subscribe(&self, subscriber: Arc<dyn Subscriber>) {
        let mut subscribers = lock(&self.subscribers);
        let image = self.image.load_full();
        let delta = MetadataDelta::from_empty(&image);
        if !delta.is_empty() {
            subscriber.on_delta(&image, &delta);
        }
        subscribers.push(subscriber);
    }

    /// Swaps the image, then calls the subscribers in order.
    pub(crate) fn publish(&self, image: MetadataImage, delta: &MetadataDelta) {
        // The lock is held until the end, so that a concurrent subscriber gets this image either in its first or in its
        // second call.
        let subscribers = lock(&self.subscribers);
        let image = Arc::new(image);
        self.image.store(image.clone());
        if !delta.is_empty() {
            for subscriber in subscribers.iter() {
                subscriber.on_delta(&image, delta);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::records::{ConfigRecord, MetadataRecord};

    struct RecordingSubscriber(&'static str, Arc<Mutex<Vec<String>>>, Arc<Publisher>);

    impl Subscriber for RecordingSubscriber {
        fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
            assert!(Arc::ptr_eq(image, &self.2.image()), "the image is swapped before subscribers are called");
            self.1.lock().unwrap().push(format!("{} {}", self.0, delta.configs.len()));
        }
    }

    #[test]
    fn subscribers_are_told_in_order_and_a_late_one_hears_everything_first() {
        let (publisher, heard) = (Publisher::new(), Arc::new(Mutex::new(Vec::new())));
        let subscribe =
            |name| publisher.subscribe(Arc::new(RecordingSubscriber(name, heard.clone(), publisher.clone())));
        let mut image = MetadataImage::default();
        let mut publish = |key: &str| {
            let mut delta = MetadataDelta::default();
            let record =
                ConfigRecord { resource_type: 2, resource_name: key.into(), name: "k".into(), value: Some("v".into()) };
            image.apply(&MetadataRecord::from(record), &mut delta).unwrap();
            publisher.publish(image.clone(), &delta);
        };
        subscribe("first");
        publish("a");
        publish("b");
        subscribe("second");
        publish("c");
        assert_eq!(*heard.lock().unwrap(), ["first 1", "first 1", "second 2", "first 1", "second 1"]);
    }
}
