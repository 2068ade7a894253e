//! The metadata store as the quorum uses it: read at the start, brought up to date at checkpoints and at the end.
//!
//! Owns when the store is opened, what has changed since it was last written, and what happens when it is damaged: it is set aside
//! with one warning, and the image comes from snapshot and log. Between checkpoints no store is open: it would cost an idle broker
//! threads and memory, and the log, which is synced with every commit, holds all of it anyway. (sled starts its threads with the
//! first write and keeps them.)

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    env::{Disk, Env},
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

/// See the head of the file.
pub struct CachedImage {
    opener: Option<Opener>,
    /// Where it lies on disk, to be set aside.
    place: Option<(Arc<dyn Disk>, PathBuf)>,
    image: Option<MetadataImage>,
    /// The offset of what is stored; None where that is nothing.
    held: Option<Offset>,
    /// What changed since.
    changed: MetadataDelta,
}

/// The store of a node: sled beside its metadata log. It is read here; damage is never fatal.
pub fn open_store(env: &Env, metadata_log_dir: &Path) -> CachedImage {
    let (disk, path) = (env.disk.clone(), metadata_log_dir.join(STORE_DIR));
    let exists = disk.exists(&path);
    let (open_disk, open_path) = (disk.clone(), path.clone());
    let opener = move || Ok(Box::new(SledStore::open(open_disk.clone(), &open_path)?) as Box<dyn MetadataStore>);
    let mut cached = CachedImage { place: Some((disk, path)), ..CachedImage::with_opener(Box::new(opener)) };
    if exists {
        cached.read();
    }
    cached
}

impl CachedImage {
    /// No store at all: everything comes from snapshot and log.
    pub fn none() -> Self {
        CachedImage { opener: None, place: None, image: None, held: None, changed: MetadataDelta::default() }
    }

    fn with_opener(opener: Opener) -> Self {
        CachedImage { opener: Some(opener), ..CachedImage::none() }
    }

    fn read(&mut self) {
        let Some(opener) = &mut self.opener else { return };
        match opener().and_then(|mut store| store.load()) {
            Ok(image) => {
                self.held = image.as_ref().map(|image| image.provenance.last_contained_offset);
                self.image = image;
            }
            Err(error) => self.discard(Some(&error.to_string())),
        }
    }

    /// The image as it was stored, once.
    pub(super) fn take_image(&mut self) -> Option<MetadataImage> {
        self.image.take()
    }

    /// What is stored is of no use. It is kept once under another name, for whoever wants to know why; where there is a `reason` to
    /// worry, this is the one warning.
    pub(super) fn discard(&mut self, reason: Option<&str>) {
        match reason {
            Some(reason) => tracing::warn!(
                reason,
                "the metadata store is unusable; it is set aside and rebuilt from snapshot and log"
            ),
            None => tracing::debug!("the metadata store is older than the newest snapshot; it is rebuilt"),
        }
        (self.image, self.held) = (None, None);
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

    /// Remembers what has changed.
    pub(super) fn note(&mut self, delta: &MetadataDelta) {
        // Without anything stored, everything will be written.
        if self.held.is_some() {
            self.changed.merge(delta);
        }
    }

    /// Brings the store up to `image`, durably. A store that fails is begun anew, and if that fails too, done without: the next start
    /// takes longer, nothing else.
    pub(super) fn save(&mut self, image: &MetadataImage) {
        if self.opener.is_none() || self.held == Some(image.provenance.last_contained_offset) {
            return;
        }
        if let Err(error) = self.try_save(image) {
            self.discard(Some(&error.to_string()));
            if let Err(error) = self.try_save(image) {
                tracing::warn!(%error, "there is no metadata store until the next start");
                self.opener = None;
            }
        }
    }

    fn try_save(&mut self, image: &MetadataImage) -> Result<(), StoreError> {
        let Some(opener) = &mut self.opener else { return Ok(()) };
        let mut store = opener()?;
        let stored = store.load()?.map(|image| image.provenance.last_contained_offset);
        match (stored, self.held) {
            (Some(stored), Some(held)) if stored == held => store.apply(image, &self.changed)?,
            (None, _) => store.apply(image, &MetadataDelta::from_empty(image))?,
            (stored, held) => {
                return Err(StoreError::Engine(format!("it holds offset {stored:?} where {held:?} was written")));
            }
        }
        store.checkpoint()?;
        self.held = Some(image.provenance.last_contained_offset);
        self.changed = MetadataDelta::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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

    #[test]
    fn what_changed_between_two_saves_is_what_is_written() {
        let shared = Arc::new(Mutex::new(MemStore::default()));
        let opened = shared.clone();
        let mut cached =
            CachedImage::with_opener(Box::new(move || Ok(Box::new(Shared(opened.clone())) as Box<dyn MetadataStore>)));
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
        let topic = |name: &str, id: u128| {
            MetadataRecord::from(TopicRecord { name: name.into(), topic_id: uuid::Uuid::from_u128(id) })
        };
        let remove = |id: u128| MetadataRecord::from(RemoveTopicRecord { topic_id: uuid::Uuid::from_u128(id) });
        let config = |name: &str| {
            ConfigRecord { resource_type: 2, resource_name: name.into(), name: "k".into(), value: Some("v".into()) }
                .into()
        };

        let image = commit(&mut cached, vec![topic("a", 1), topic("b", 2)]);
        cached.save(&image);
        assert_eq!(shared.lock().unwrap().load().unwrap(), Some(image));
        // Between the saves: one comes and goes, one goes and its name comes back, one is left.
        commit(&mut cached, vec![topic("c", 3), config("a")]);
        commit(&mut cached, vec![remove(3), remove(2)]);
        let image = commit(&mut cached, vec![topic("b", 4), config("b")]);
        cached.save(&image);
        assert_eq!(shared.lock().unwrap().load().unwrap(), Some(image));
    }
}
