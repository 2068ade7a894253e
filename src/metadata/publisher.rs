//! Hands each new image to everybody who reads it.
//!
//! Owns: the current image (readers take a snapshot per request) and the order in which subscribers hear of a change:
//! first the image is swapped, then each subscriber is told, in the order in which they subscribed (`broker.rs` writes
//! that order down), and only then does whoever asked for the change get an answer. One thread publishes: the raft
//! driver.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::{delta::MetadataDelta, image::MetadataImage};
use crate::env::lock::lock;

/// Somebody who must act when metadata changes.
pub trait Subscriber: Send + Sync {
    /// `image` is already what readers see; `delta` is what changed since the last call. Runs on the metadata thread:
    /// every answer of the controller waits for it.
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta);
}

/// The current image and who is told of the next.
#[derive(Default)]
pub struct Publisher {
    image: ArcSwap<MetadataImage>,
    subscribers: Mutex<Vec<Arc<dyn Subscriber>>>,
}

impl Publisher {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The image as of now; it never changes under the reader.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// Adds a subscriber behind those there are. It is told the whole present image first, before this returns.
    pub fn subscribe(&self, subscriber: Arc<dyn Subscriber>) {
        let mut subscribers = lock(&self.subscribers);
        let image = self.image.load_full();
        let delta = MetadataDelta::from_empty(&image);
        if !delta.is_empty() {
            subscriber.on_delta(&image, &delta);
        }
        subscribers.push(subscriber);
    }

    /// Swaps the image, then tells the subscribers in order.
    pub(crate) fn publish(&self, image: MetadataImage, delta: &MetadataDelta) {
        // Held throughout: a subscriber that comes meanwhile must see this image either in its first call or in its
        // second.
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

    struct Heard(&'static str, Arc<Mutex<Vec<String>>>, Arc<Publisher>);

    impl Subscriber for Heard {
        fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
            assert!(Arc::ptr_eq(image, &self.2.image()), "the image is swapped before anybody is told");
            self.1.lock().unwrap().push(format!("{} {}", self.0, delta.configs.len()));
        }
    }

    #[test]
    fn subscribers_are_told_in_order_and_a_late_one_hears_everything_first() {
        let (publisher, heard) = (Publisher::new(), Arc::new(Mutex::new(Vec::new())));
        let subscribe = |name| publisher.subscribe(Arc::new(Heard(name, heard.clone(), publisher.clone())));
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
