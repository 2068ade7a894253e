//! Publishes each new image to readers and subscribers.
//!
//! Owns the current image (readers take a snapshot per request) and the order of the steps of a change: first the image
//! is swapped, then the subscribers are called in the order in which they subscribed (`broker.rs` defines that order),
//! and only then is the offset published, for which the request for the change waits. The metadata thread hands images
//! over and does not wait: the subscribers run on the blocking pool, one image after the other. Images that are handed
//! over meanwhile are published as one.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::{delta::MetadataDelta, image::MetadataImage};
use crate::{
    env::{
        Tasks, Watched,
        lock::{PanicEndsProcess, lock},
    },
    types::Offset,
};

/// A component that must act when metadata change.
pub trait Subscriber: Send + Sync {
    /// Handles a change. Readers already see `image`; `delta` has the changes since the last call. It may wait for
    /// disks, but all responses of the controller and all other subscribers wait for it.
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta);
}

/// The current image and its subscribers.
pub struct Publisher {
    tasks: Tasks,
    image: ArcSwap<MetadataImage>,
    subscribers: Mutex<Vec<Arc<dyn Subscriber>>>,
    queue: Mutex<Queue>,
    /// The last offset of the newest image that all subscribers have handled; `None` before the first.
    published: Watched<Option<Offset>>,
}

/// What was handed over and is not published yet.
#[derive(Default)]
struct Queue {
    next: Option<Update>,
    is_publishing: bool,
}

/// An image and its changes since the previous one.
struct Update {
    image: MetadataImage,
    delta: MetadataDelta,
}

impl Publisher {
    /// A publisher of an empty image. `tasks` run the subscribers.
    pub fn new(tasks: &Tasks) -> Arc<Self> {
        Arc::new(Publisher {
            tasks: tasks.clone(),
            image: ArcSwap::default(),
            subscribers: Mutex::default(),
            queue: Mutex::default(),
            published: Watched::default(),
        })
    }

    /// Returns the current image, which is immutable.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// Waits until all subscribers have handled an image that contains the record at `offset`.
    pub async fn published(&self, offset: Offset) {
        self.published.until(|published| published.is_some_and(|published| published >= offset)).await;
    }

    /// Waits until everything that was handed over is published.
    pub async fn settled(&self) {
        self.published.until(|_| !lock(&self.queue).is_publishing).await;
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

    /// Hands over a newer image, and does not wait until it is published. `delta` has the changes since the last image
    /// that was handed over.
    pub(crate) fn hand_over(self: &Arc<Self>, image: MetadataImage, delta: MetadataDelta) {
        let mut queue = lock(&self.queue);
        queue.next = Some(match queue.next.take() {
            None => Update { image, delta },
            Some(Update { delta: mut merged, .. }) => {
                merged.merge(&delta);
                Update { image, delta: merged }
            }
        });
        if !std::mem::replace(&mut queue.is_publishing, true) {
            let publisher = self.clone();
            self.tasks.start_blocking("publish metadata", move || while publisher.publish_next() {});
        }
    }

    /// Publishes what was handed over. Returns whether there may be more.
    fn publish_next(&self) -> bool {
        // Else the requests that wait for this image would wait for ever.
        let _panic_ends_process = PanicEndsProcess;
        let Some(Update { image, delta }) = lock(&self.queue).next.take() else { return false };
        let offset = image.provenance.last_contained_offset;
        self.publish(image, &delta);
        let has_more = {
            let mut queue = lock(&self.queue);
            queue.is_publishing = queue.next.is_some();
            queue.is_publishing
        };
        self.published.set(Some(offset));
        has_more
    }

    /// Swaps the image, then calls the subscribers in order.
    fn publish(&self, image: MetadataImage, delta: &MetadataDelta) {
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
    use tokio::sync::watch;

    use super::*;
    use crate::metadata::records::{ConfigRecord, MetadataRecord};

    struct RecordingSubscriber(&'static str, Arc<Mutex<Vec<String>>>, Arc<Publisher>);

    impl Subscriber for RecordingSubscriber {
        fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
            assert!(Arc::ptr_eq(image, &self.2.image()), "the image is swapped before subscribers are called");
            self.1.lock().unwrap().push(format!("{} {}", self.0, delta.configs.len()));
        }
    }

    #[tokio::test]
    async fn subscribers_are_told_in_order_and_a_late_one_hears_everything_first() {
        let (publisher, heard) = (Publisher::new(&Tasks::new()), Arc::new(Mutex::new(Vec::new())));
        let subscribe =
            |name| publisher.subscribe(Arc::new(RecordingSubscriber(name, heard.clone(), publisher.clone())));
        let mut image = MetadataImage::default();
        let mut publish = |key: &str| {
            let mut delta = MetadataDelta::default();
            let record =
                ConfigRecord { resource_type: 2, resource_name: key.into(), name: "k".into(), value: Some("v".into()) };
            image.apply(&MetadataRecord::from(record), &mut delta).unwrap();
            publisher.hand_over(image.clone(), delta);
        };
        subscribe("first");
        for key in ["a", "b"] {
            publish(key);
            publisher.settled().await;
        }
        subscribe("second");
        publish("c");
        publisher.settled().await;
        assert_eq!(*heard.lock().unwrap(), ["first 1", "first 1", "second 2", "first 1", "second 1"]);
    }

    /// Does not return from its first call until the other end is dropped.
    struct Blocks(Mutex<std::sync::mpsc::Receiver<()>>, watch::Sender<Vec<usize>>);

    impl Subscriber for Blocks {
        fn on_delta(&self, _: &Arc<MetadataImage>, delta: &MetadataDelta) {
            self.1.send_modify(|heard| heard.push(delta.configs.len()));
            let _ = self.0.lock().unwrap().recv();
        }
    }

    #[tokio::test]
    async fn what_is_handed_over_meanwhile_is_published_as_one_and_nobody_waits_but_those_who_ask() {
        let publisher = Publisher::new(&Tasks::new());
        let (open, blocked) = std::sync::mpsc::channel();
        let (sender, mut heard) = watch::channel(Vec::new());
        publisher.subscribe(Arc::new(Blocks(Mutex::new(blocked), sender)));
        let mut image = MetadataImage::default();
        for (offset, key) in (0..).zip(["a", "b", "c"]) {
            let mut delta = MetadataDelta::default();
            let record =
                ConfigRecord { resource_type: 2, resource_name: key.into(), name: "k".into(), value: Some("v".into()) };
            image.apply(&MetadataRecord::from(record), &mut delta).unwrap();
            image.provenance.last_contained_offset = offset;
            publisher.hand_over(image.clone(), delta);
            if offset == 0 {
                heard.wait_for(|heard| !heard.is_empty()).await.unwrap();
            }
        }
        assert_eq!(publisher.image().configs.len(), 1, "the subscriber still handles the first image");
        let waits = futures_util::FutureExt::now_or_never(publisher.published(0));
        assert!(waits.is_none(), "the first image is not handled yet");
        drop(open);
        publisher.published(2).await;
        assert_eq!(publisher.image().configs.len(), 3);
        assert_eq!(*heard.borrow(), [1, 2], "the second and the third image are published as one");
    }
}
