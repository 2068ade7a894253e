//! The metadata store as the quorum uses it: read at the start, brought up to date at checkpoints and at the end.
//!
//! Owns when the store is opened, what has changed since it was last written, and what happens when it is damaged: it
//! is set aside with one warning, and the image comes from snapshot and log. It is written by the blocking pool: the
//! metadata thread hands over an image, which shares its parts with the next one, and goes on. Between checkpoints no
//! store is open: it would cost an idle broker threads and memory, and the log, which is synced with every commit,
//! holds all of it anyway. (sled starts its threads with the first write and keeps them.)

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

/// Beside the metadata log; Kafka ignores subdirectories there.
pub(super) const STORE_DIR: &str = "image.sled";

/// Opens a store, new or as it was left.
type Opener = Box<dyn FnMut() -> Result<Box<dyn MetadataStore>, StoreError> + Send>;

/// Gives the store that belongs to the metadata log in a directory: [`open_store`], or [`CachedImage::none`] where the
/// disk is simulated.
pub type OpenStore = fn(&Env, &Path) -> CachedImage;

/// See the head of the file.
pub struct CachedImage {
    /// None without a store.
    writer: Option<Arc<Writer>>,
    image: Option<MetadataImage>,
    /// Something is stored or will be.
    is_begun: bool,
    /// What changed since the last image that was handed over.
    changed: MetadataDelta,
}

/// The store of a node: sled beside its metadata log. It is read here; damage is never fatal.
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
    /// No store at all: everything comes from snapshot and log.
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

    /// The image as it was stored, once.
    pub(super) fn take_image(&mut self) -> Option<MetadataImage> {
        self.image.take()
    }

    /// The stored image is of no use; see [`Stored::discard`]. Nothing was handed over yet.
    pub(super) fn discard(&mut self, reason: Option<&str>) {
        (self.image, self.is_begun) = (None, false);
        if let Some(writer) = &self.writer {
            writer.stored().discard(reason);
        }
    }

    /// Remembers what has changed.
    pub(super) fn note(&mut self, delta: &MetadataDelta) {
        // Without anything stored, everything will be written.
        if self.is_begun {
            self.changed.merge(delta);
        }
    }

    /// Has the store brought up to `image`, durably, without waiting for it: whoever stops the tasks of the broker
    /// waits.
    pub(super) fn save(&mut self, image: &MetadataImage) {
        let Some(writer) = &self.writer else { return };
        self.is_begun = true;
        writer.hand_over(Update { image: image.clone(), changed: std::mem::take(&mut self.changed) });
    }
}

/// An image, and what changed in it since the one before.
struct Update {
    image: MetadataImage,
    changed: MetadataDelta,
}

/// Writes one update after the other; those that come meanwhile are written as one.
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

/// The store itself, closed.
struct Stored {
    /// None once it cannot be used any more.
    opener: Option<Opener>,
    /// Where it lies on disk, to be set aside.
    place: Option<(Arc<dyn Disk>, PathBuf)>,
    /// The offset of what is stored; None where that is nothing.
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

    /// What is stored is of no use. It is kept once under another name, for whoever wants to know why; where there is a
    /// `reason` to worry, this is the one warning.
    fn discard(&mut self, reason: Option<&str>) {
        match reason {
            Some(reason) => tracing::warn!(
                reason,
                "the metadata store is unusable; it is set aside and rebuilt from snapshot and log"
            ),
            None => tracing::debug!("the metadata store is older than the newest snapshot; it is rebuilt"),
        }
        self.held = None;
        if let Err(error) = self.set_aside() {
            tracing::warn!(%error, "the metadata store cannot be set aside; there is none until the next start");
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

    /// Brings the store up to an image, durably. A store that fails is begun anew, and if that fails too, done without:
    /// the next start takes longer, nothing else.
    fn save(&mut self, update: &Update) {
        if self.opener.is_none() || self.held == Some(update.image.provenance.last_contained_offset) {
            return;
        }
        if let Err(error) = self.try_save(update) {
            self.discard(Some(&error.to_string()));
            if let Err(error) = self.try_save(update) {
                tracing::warn!(%error, "there is no metadata store until the next start");
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
                return Err(StoreError::Engine(format!("it holds offset {stored:?} where {held:?} was written")));
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

    /// One store, opened again and again.
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
        // Between the saves: one comes and goes, one goes and its name comes back, one is left.
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
            may_open.recv_timeout(Duration::from_secs(10)).expect("the caller goes on while the store is opened");
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
        // The first is being written while the others are handed over.
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
