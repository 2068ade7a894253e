//! Kafka's small text files: offset checkpoints, `partition.metadata`, `meta.properties`, the clean-shutdown mark.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{LogError, context::lock};
use crate::{
    env::{Disk, Open},
    types::{BrokerId, Offset, TopicId, TopicPartition, uuid_from_base64, uuid_to_base64},
};

/// `OffsetCheckpointFile`: one offset per partition, and what of it is on disk.
pub struct OffsetCheckpoint {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: Mutex<Offsets>,
    /// Times an offset was lowered or removed.
    cuts: AtomicU64,
}

#[derive(Default)]
struct Offsets {
    /// As on disk, but for what is `forgotten`.
    durable: BTreeMap<TopicPartition, Offset>,
    /// Still on disk, and no longer true.
    forgotten: BTreeSet<TopicPartition>,
}

impl OffsetCheckpoint {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    /// When it cannot be read, or is not a checkpoint.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, LogError> {
        let durable = match read_if_exists(&*disk, &path)? {
            None => BTreeMap::new(),
            Some(bytes) => parse_offsets(&bytes).ok_or_else(|| LogError::Invalid {
                path: path.clone(),
                reason: "it is not an offset checkpoint".into(),
            })?,
        };
        Ok(OffsetCheckpoint {
            disk,
            path,
            state: Mutex::new(Offsets { durable, ..Offsets::default() }),
            cuts: AtomicU64::new(0),
        })
    }

    /// The offset of `partition` as it is on disk.
    pub fn get(&self, partition: &TopicPartition) -> Option<Offset> {
        lock(&self.state).durable.get(partition).copied()
    }

    /// Replaces the offsets of the partitions named, keeps the others; writes only if that changes something.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub fn update(&self, offsets: impl IntoIterator<Item = (TopicPartition, Offset)>) -> Result<(), LogError> {
        self.change(|known| known.extend(offsets))
    }

    /// To be taken before offsets are gathered for [`OffsetCheckpoint::update_unless_cut`].
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// [`OffsetCheckpoint::update`] with offsets gathered since `cuts`; left for the next time if one of them was
    /// lowered meanwhile. Answers whether it was done.
    ///
    /// # Errors
    /// As [`OffsetCheckpoint::update`].
    pub fn update_unless_cut(
        &self,
        cuts: u64,
        offsets: impl IntoIterator<Item = (TopicPartition, Offset)>,
    ) -> Result<bool, LogError> {
        let mut done = false;
        self.change(|known| {
            if self.cuts() == cuts {
                known.extend(offsets);
                done = true;
            }
        })?;
        Ok(done)
    }

    /// Lowers the offset of `partition` to at most `offset`, durably, before the log itself is cut.
    ///
    /// # Errors
    /// As [`OffsetCheckpoint::update`].
    pub fn lower(&self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        self.change(|known| {
            self.cuts.fetch_add(1, Ordering::AcqRel);
            if let Some(stored) = known.get_mut(partition) {
                *stored = (*stored).min(offset);
            }
        })
    }

    /// Forgets a partition whose directory is gone. The file follows with the next change: what it says of a partition
    /// that is not there harms nobody, and a thousand deletes cost no write. One of the same name that comes later has
    /// to [`OffsetCheckpoint::remove`] it first.
    pub fn forget(&self, partition: &TopicPartition) {
        let mut state = lock(&self.state);
        self.cuts.fetch_add(1, Ordering::AcqRel);
        if state.durable.remove(partition).is_some() {
            state.forgotten.insert(partition.clone());
        }
    }

    /// Removes `partition`, durably.
    ///
    /// # Errors
    /// As [`OffsetCheckpoint::update`].
    pub fn remove(&self, partition: &TopicPartition) -> Result<(), LogError> {
        self.change(|known| {
            self.cuts.fetch_add(1, Ordering::AcqRel);
            known.remove(partition);
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<TopicPartition, Offset>)) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let mut wanted = state.durable.clone();
        change(&mut wanted);
        if wanted == state.durable && state.forgotten.is_empty() {
            return Ok(());
        }
        self.disk
            .write_atomically(&self.path, offsets_text(&wanted).as_bytes())
            .map_err(LogError::io("write", &self.path))?;
        *state = Offsets { durable: wanted, forgotten: BTreeSet::new() };
        Ok(())
    }
}

fn offsets_text(offsets: &BTreeMap<TopicPartition, Offset>) -> String {
    use std::fmt::Write;
    let mut text = format!("0\n{}\n", offsets.len());
    for (partition, offset) in offsets {
        let _ = writeln!(text, "{} {} {offset}", partition.topic, partition.partition); // A String takes all.
    }
    text
}

fn parse_offsets(bytes: &[u8]) -> Option<BTreeMap<TopicPartition, Offset>> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()?.trim() != "0" {
        return None;
    }
    let count: usize = lines.next()?.trim().parse().ok()?;
    let mut offsets = BTreeMap::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_whitespace();
        let (topic, partition, offset) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        offsets.insert(TopicPartition::new(topic, partition), offset);
    }
    (offsets.len() == count).then_some(offsets)
}

/// A whole file, or `None` where there is none.
pub(crate) fn read_if_exists(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    match disk.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("read", path)(error)),
    }
}

/// Writes a whole file without waiting for the disk: for what can be rebuilt if a crash takes it.
pub(crate) fn write_unsynced(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = disk.open(path, Open::Create)?;
    file.set_len(0)?;
    file.write_all_at(content, 0)
}

/// The text of `partition.metadata`.
pub(crate) fn partition_metadata_text(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

/// The topic id in a `partition.metadata`; `None` where the text is damaged (a crash before its first fsync).
pub(crate) fn parse_partition_metadata(bytes: &[u8]) -> Option<TopicId> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut version = None;
    let mut topic_id = None;
    for line in text.lines() {
        match line.split_once(':')? {
            ("version", value) => version = value.trim().parse::<i32>().ok(),
            ("topic_id", value) => topic_id = value.trim().parse::<TopicId>().ok(),
            _ => {}
        }
    }
    (version == Some(0)).then_some(topic_id?)
}

/// `meta.properties`: whose directory this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// `cluster.id`, in Kafka's form of 22 characters.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: BrokerId,
    /// `directory.id`.
    pub directory_id: Uuid,
}

impl MetaProperties {
    /// The file's name in a log directory.
    pub const FILE_NAME: &'static str = "meta.properties";

    /// As Kafka 4 writes it (version 1).
    pub fn to_text(&self) -> String {
        format!(
            "#\ncluster.id={}\ndirectory.id={}\nnode.id={}\nversion=1\n",
            self.cluster_id,
            uuid_to_base64(self.directory_id),
            self.node_id
        )
    }

    /// Reads what [`MetaProperties::to_text`] or Kafka wrote.
    ///
    /// # Errors
    /// A sentence on what is missing or wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let properties: BTreeMap<&str, &str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['#', '!']))
            .filter_map(|line| line.split_once('=').or_else(|| line.split_once(':')))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let get = |key: &str| properties.get(key).copied().ok_or_else(|| format!("{key} is missing"));
        match get("version")? {
            "1" => {}
            other => return Err(format!("version {other} is not 1")),
        }
        Ok(MetaProperties {
            cluster_id: get("cluster.id")?.replace('\\', ""),
            node_id: get("node.id")?.parse().map_err(|_| "node.id is not a number".to_owned())?,
            directory_id: uuid_from_base64(get("directory.id")?).map_err(|error| format!("directory.id: {error}"))?,
        })
    }
}

/// The mark of a clean shutdown (`CleanShutdownFileHandler`).
pub(crate) const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// Its content.
pub(crate) const CLEAN_SHUTDOWN_TEXT: &str = "{\"version\":0,\"brokerEpoch\":-1}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemDisk;

    #[test]
    fn offset_checkpoints_are_kafkas_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery-point-offset-checkpoint");
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let checkpoint = OffsetCheckpoint::open(disk.clone(), path.clone()).unwrap();
        checkpoint.update([(TopicPartition::new("b", 0), 7), (TopicPartition::new("a-x", 1), 3)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n2\na-x 1 3\nb 0 7\n");
        checkpoint.lower(&TopicPartition::new("b", 0), 5).unwrap();
        checkpoint.lower(&TopicPartition::new("c", 0), 5).unwrap();
        let again = OffsetCheckpoint::open(disk.clone(), path.clone()).unwrap();
        assert_eq!(again.get(&TopicPartition::new("b", 0)), Some(5));
        assert_eq!(again.get(&TopicPartition::new("c", 0)), None);
        again.remove(&TopicPartition::new("b", 0)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\na-x 1 3\n");
        std::fs::write(&path, "0\n2\na 1 3\n").unwrap();
        assert!(matches!(OffsetCheckpoint::open(disk, path), Err(LogError::Invalid { .. })));
    }

    #[test]
    fn meta_properties_of_kafka_are_read() {
        let text = b"#\n#Thu Nov 05 10:00:00 UTC 2026\ncluster.id=5L6g3nShT-eMCtK--X86sw\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=1\nversion=1\n";
        let meta = MetaProperties::parse(text).unwrap();
        assert_eq!(
            (meta.cluster_id.as_str(), meta.node_id, meta.directory_id.as_u128()),
            ("5L6g3nShT-eMCtK--X86sw", 1, 1)
        );
        assert_eq!(MetaProperties::parse(meta.to_text().as_bytes()), Ok(meta));
        assert!(MetaProperties::parse(b"version=0\n").is_err());
        assert!(MetaProperties::parse(b"version=1\ncluster.id=x\n").unwrap_err().contains("node.id"));
    }

    #[test]
    fn a_torn_partition_metadata_is_noticed() {
        let id = TopicId(Uuid::from_u128(77));
        let text = partition_metadata_text(id);
        assert_eq!(parse_partition_metadata(text.as_bytes()), Some(id));
        assert_eq!(parse_partition_metadata(&text.as_bytes()[..20]), None);
        assert_eq!(parse_partition_metadata(&[0; 30]), None);
    }
}
