//! The metadata store as the quorum uses it: read at the start, updated at each snapshot and at the end.
//!
//! Owns when the store is opened, the changes since it was last written, and the handling of damage: a damaged store is
//! moved aside with one warning, and the image comes from snapshot and log. The blocking pool writes the store: the
//! metadata thread hands over an image, which shares its parts with the next one, and continues. Between two saves the
//! store is closed: an open one would cost an idle broker threads and memory, and the log, which is synced with every
//! commit, holds the same data. (sled starts its threads with the first write and keeps them.)

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    env::{Disk, Env, Tasks, lock},
    metadata::{
        delta::MetadataDelta,
        image::MetadataImage,
        store::{MetadataStore, SledStore, StoreError},
    },
    types::Offset,
};

/// The directory is beside the metadata log; Kafka ignores subdirectories there.
pub(super) const STORE_DIR: &str = "image.sled";

/// Opens the store, or creates it.
type Opener = Box<dyn FnMut() -> Result<Box<dyn MetadataStore>, StoreError> + Send>;

/// Returns the store for the metadata log in a directory: [`open_store`], or [`CachedImage::none`] if the disk is
/// simulated.
pub type OpenStore = fn(&Env, &Path) -> CachedImage;

/// See the head of the file.
pub struct CachedImage {
    /// None if there is no store.
    writer: Option<Arc<Writer>>,
    image: Option<MetadataImage>,
    /// An image is stored or handed over.
    is_begun: bool,
    /// The changes since the last image that was handed over.
    changed: MetadataDelta,
}

/// Returns the store of a node, sled beside its metadata log, and reads the stored image. Damage is never fatal.
pub fn open_store(env: &Env, metadata_log_dir: &Path) -> CachedImage {
    let (disk, path) = (env.disk.clone(), metadata_log_dir.join(STORE_DIR));
    let exists = disk.exists(&path);
    let (open_disk, open_path) = (disk.clone(), path.clone());
    let opener = move || Ok(Box::new(SledStore::open(open_disk.clone(), &open_path)?) as Box<dyn MetadataStore>);
    let mut cached = CachedImage::new(&env.tasks, Stored::new(Box::new(opener), Some((disk, path))));
    if exists {
        cached.read();
    }
    cached
}

impl CachedImage {
    /// Without a store: the image comes from snapshot and log.
    pub fn none() -> Self {
        CachedImage { writer: None, image: None, is_begun: false, changed: MetadataDelta::default() }
    }

    fn new(tasks: &Tasks, stored: Stored) -> Self {
        let writer = Writer { tasks: tasks.clone(), stored: Mutex::new(stored), queue: Mutex::default() };
        CachedImage { writer: Some(Arc::new(writer)), ..CachedImage::none() }
    }

    fn read(&mut self) {
        let Some(writer) = &self.writer else { return };
        self.image = writer.stored().read();
        self.is_begun = self.image.is_some();
    }

    /// Returns the image that was stored; the second call returns None.
    pub(super) fn take_image(&mut self) -> Option<MetadataImage> {
        self.image.take()
    }

    /// Discards the stored image, see [`Stored::discard`]. Must be called before the first `save`.
    pub(super) fn discard(&mut self, reason: Option<&str>) {
        (self.image, self.is_begun) = (None, false);
        if let Some(writer) = &self.writer {
            writer.stored().discard(reason);
        }
    }

    /// Collects the changes for the next save.
    pub(super) fn note(&mut self, delta: &MetadataDelta) {
        // If nothing is stored, the first save writes the whole image.
        if self.is_begun {
            self.changed.merge(delta);
        }
    }

    /// Starts the durable update of the store to `image` and does not wait for it; the stop of the broker's tasks does.
    pub(super) fn save(&mut self, image: &MetadataImage) {
        let Some(writer) = &self.writer else { return };
        self.is_begun = true;
        writer.hand_over(Update { image: image.clone(), changed: std::mem::take(&mut self.changed) });
    }
}

/// An image and its changes since the previous one.
struct Update {
    image: MetadataImage,
    changed: MetadataDelta,
}

/// Writes one update after the other. Updates that arrive during a write are merged into one.
struct Writer {
    tasks: Tasks,
    stored: Mutex<Stored>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: Option<Update>,
    is_writing: bool,
}

impl Writer {
    fn hand_over(self: &Arc<Self>, update: Update) {
        let mut queue = self.queue();
        queue.next = Some(match queue.next.take() {
            None => update,
            Some(Update { mut changed, .. }) => {
                changed.merge(&update.changed);
                Update { changed, ..update }
            }
        });
        if !std::mem::replace(&mut queue.is_writing, true) {
            let (writer, tasks) = (self.clone(), self.tasks.clone());
            self.tasks.spawn("metadata store", async move {
                tasks.blocking("write the metadata store", move || writer.write_all()).await;
            });
        }
    }

    fn write_all(&self) {
        while let Some(update) = self.take_next() {
            self.stored().save(&update);
        }
    }

    fn take_next(&self) -> Option<Update> {
        let mut queue = self.queue();
        let next = queue.next.take();
        queue.is_writing = next.is_some();
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock::lock(&self.queue)
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        lock::lock(&self.stored)
    }
}

/// The store itself, which is closed between two uses.
struct Stored {
    /// None once it cannot be used any more.
    opener: Option<Opener>,
    /// Its path on the disk, for moving it aside.
    place: Option<(Arc<dyn Disk>, PathBuf)>,
    /// The last offset of the stored image; None if nothing is stored.
    held: Option<Offset>,
}

impl Stored {
    fn new(opener: Opener, place: Option<(Arc<dyn Disk>, PathBuf)>) -> Self {
        Stored { opener: Some(opener), place, held: None }
    }

    fn read(&mut self) -> Option<MetadataImage> {
        let opener = self.opener.as_mut()?;
        match opener().and_then(|mut store| store.load()) {
            Ok(image) => {
                self.held = image.as_ref().map(|image| image.provenance.last_contained_offset);
                image
            }
            Err(error) => {
                self.discard(Some(&error.to_string()));
                None
            }
        }
    }

    /// Moves the store aside, because it cannot be used. The newest such copy is kept for analysis. Logs the only
    /// warning if there is a `reason`; without one the store is only too old.
    fn discard(&mut self, reason: Option<&str>) {
        match reason {
            Some(reason) => tracing::warn!(
                reason,
                "the metadata store is unusable; it is moved aside and rebuilt from snapshot and log"
            ),
            None => tracing::debug!("the metadata store is older than the newest snapshot; it is rebuilt"),
        }
        self.held = None;
        if let Err(error) = self.set_aside() {
            tracing::warn!(%error, "the metadata store cannot be moved aside; the broker runs without it until the next start");
            self.opener = None;
        }
    }

    fn set_aside(&self) -> io::Result<()> {
        let Some((disk, path)) = &self.place else { return Ok(()) };
        let aside = path.with_extension("sled.broken");
        if disk.exists(&aside) {
            disk.remove_dir_all(&aside)?;
        }
        if disk.exists(path) {
            disk.rename(path, &aside)?;
        }
        Ok(())
    }

    /// Updates the store to an image, durably. If that fails, the store is rebuilt once; if that fails too, the broker
    /// runs without it, and only the next start takes longer.
    fn save(&mut self, update: &Update) {
        if self.opener.is_none() || self.held == Some(update.image.provenance.last_contained_offset) {
            return;
        }
        if let Err(error) = self.try_save(update) {
            self.discard(Some(&error.to_string()));
            if let Err(error) = self.try_save(update) {
                tracing::warn!(%error, "the metadata store cannot be written; the broker runs without it until the next start");
                self.opener = None;
            }
        }
    }

    fn try_save(&mut self, Update { image, changed }: &Update) -> Result<(), StoreError> {
        let Some(opener) = &mut self.opener else { return Ok(()) };
        let mut store = opener()?;
        let stored = store.load()?.map(|image| image.provenance.last_contained_offset);
        match (stored, self.held) {
            (Some(stored), Some(held)) if stored == held => store.apply(image, changed)?,
            (None, _) => store.apply(image, &MetadataDelta::from_empty(image))?,
            (stored, held) => {
                return Err(StoreError::Engine(format!("it holds offset {stored:?}, but offset {held:?} was written")));
            }
        }
        store.checkpoint()?;
        self.held = Some(image.provenance.last_contained_offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::metadata::{
        records::{ConfigRecord, MetadataRecord, RemoveTopicRecord, TopicRecord},
        store::MemStore,
    };

    /// One store that can be opened many times.
    struct Shared(Arc<Mutex<MemStore>>);

    impl MetadataStore for Shared {
        fn load(&mut self) -> Result<Option<MetadataImage>, StoreError> {
            self.0.lock().unwrap().load()
        }
        fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta) -> Result<(), StoreError> {
            self.0.lock().unwrap().apply(image, delta)
        }
        fn checkpoint(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn topic(name: &str, id: u128) -> MetadataRecord {
        TopicRecord { name: name.into(), topic_id: uuid::Uuid::from_u128(id) }.into()
    }

    #[tokio::test]
    async fn what_changed_between_two_saves_is_what_is_written() {
        let shared = Arc::new(Mutex::new(MemStore::default()));
        let (opened, tasks) = (shared.clone(), Tasks::new());
        let opener = move || Ok(Box::new(Shared(opened.clone())) as Box<dyn MetadataStore>);
        let mut cached = CachedImage::new(&tasks, Stored::new(Box::new(opener), None));
        let mut image = MetadataImage::default();
        let mut commit = |cached: &mut CachedImage, records: Vec<MetadataRecord>| {
            let mut delta = MetadataDelta::default();
            for record in records {
                image.apply(&record, &mut delta).unwrap();
                image.provenance.last_contained_offset += 1;
            }
            cached.note(&delta);
            image.clone()
        };
        let remove = |id: u128| MetadataRecord::from(RemoveTopicRecord { topic_id: uuid::Uuid::from_u128(id) });
        let config = |name: &str| {
            ConfigRecord { resource_type: 2, resource_name: name.into(), name: "k".into(), value: Some("v".into()) }
                .into()
        };

        let image = commit(&mut cached, vec![topic("a", 1), topic("b", 2)]);
        cached.save(&image);
        tasks.shutdown().await;
        assert_eq!(shared.lock().unwrap().load().unwrap(), Some(image));
        // Between the saves one topic is created and deleted, one is deleted and created again, and one stays.
        commit(&mut cached, vec![topic("c", 3), config("a")]);
        commit(&mut cached, vec![remove(3), remove(2)]);
        let image = commit(&mut cached, vec![topic("b", 4), config("b")]);
        cached.save(&image);
        tasks.shutdown().await;
        assert_eq!(shared.lock().unwrap().load().unwrap(), Some(image));
    }
    #[tokio::test]
    async fn the_store_is_written_beside_the_caller_and_what_comes_meanwhile_in_one_go() {
        let shared = Arc::new(Mutex::new(MemStore::default()));
        let (opened, tasks) = (shared.clone(), Tasks::new());
        let (open, may_open) = mpsc::channel();
        let (opening, is_opening) = mpsc::channel();
        let opener = move || {
            opening.send(thread::current().id()).unwrap();
            may_open
                .recv_timeout(Duration::from_secs(10))
                .expect("the caller continues while the store is being opened");
            Ok(Box::new(Shared(opened.clone())) as Box<dyn MetadataStore>)
        };
        let mut cached = CachedImage::new(&tasks, Stored::new(Box::new(opener), None));
        let mut image = MetadataImage::default();
        let mut commit = |cached: &mut CachedImage, name: &str, id: u128| {
            let mut delta = MetadataDelta::default();
            image.apply(&topic(name, id), &mut delta).unwrap();
            image.provenance.last_contained_offset += 1;
            cached.note(&delta);
            cached.save(&image);
            image.clone()
        };
        commit(&mut cached, "a", 1);
        let opened_by = tokio::task::spawn_blocking(move || (is_opening.recv().unwrap(), is_opening));
        let (writer, _is_opening) = opened_by.await.unwrap();
        assert_ne!(writer, thread::current().id());
        // The first update is being written while the others are handed over.
        commit(&mut cached, "b", 2);
        commit(&mut cached, "c", 3);
        let image = commit(&mut cached, "d", 4);
        for _ in 0..2 {
            open.send(()).unwrap();
        }
        tasks.shutdown().await;
        assert_eq!(shared.lock().unwrap().load().unwrap(), Some(image));
        assert!(cached.writer.unwrap().stored().opener.is_some(), "the store was opened twice and never failed");
    }
}
