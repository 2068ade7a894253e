//! Kafka's small text files: offset checkpoints, `partition.metadata`, `meta.properties`, the clean-shutdown file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use uuid::Uuid;

use super::LogError;
use crate::{
    env::{Disk, Open, lock::lock},
    protocol::record_batch::crc32c,
    types::{BrokerId, Offset, TopicId, TopicPartition, uuid_from_base64, uuid_to_base64},
};

/// `OffsetCheckpointFile`: one offset per partition.
pub struct OffsetCheckpoint {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: Mutex<Offsets>,
}

#[derive(Default)]
struct Offsets {
    /// The offsets on disk, without those of `forgotten`.
    durable: BTreeMap<TopicPartition, Offset>,
    /// Partitions whose offsets are still on disk, but no longer valid.
    forgotten: BTreeSet<TopicPartition>,
    /// How many calls of [`OffsetCheckpoint::update_gathered`] are collecting their offsets.
    gathering: usize,
    /// The partitions whose offset was lowered or removed since the first of those calls began.
    cut_meanwhile: BTreeSet<TopicPartition>,
}

impl Offsets {
    fn note_cut(&mut self, partition: &TopicPartition) {
        if self.gathering > 0 {
            self.cut_meanwhile.insert(partition.clone());
        }
    }
}

impl OffsetCheckpoint {
    /// Reads the file; a missing one counts as empty. Every value in it can be recovered from the logs, so a damaged
    /// file causes only a warning: its readable lines are used, and the partitions of the other lines are checked from
    /// their beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, LogError> {
        let read = read_if_exists(&*disk, &path)?.map(|bytes| parse_offsets(&bytes)).unwrap_or_default();
        if read.is_damaged {
            tracing::warn!(
                path = %path.display(), readable_lines = read.offsets.len(),
                "an offset checkpoint is damaged; the missing offsets are recovered from the logs"
            );
        }
        Ok(Self::with(disk, path, read.offsets))
    }

    /// The checkpoint of a directory that cannot be read.
    pub(crate) fn empty(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self::with(disk, path, BTreeMap::new())
    }

    fn with(disk: Arc<dyn Disk>, path: PathBuf, durable: BTreeMap<TopicPartition, Offset>) -> Self {
        OffsetCheckpoint { disk, path, state: Mutex::new(Offsets { durable, ..Offsets::default() }) }
    }

    /// The offset of `partition` on disk.
    pub fn get(&self, partition: &TopicPartition) -> Option<Offset> {
        lock(&self.state).durable.get(partition).copied()
    }

    /// Replaces the offsets of the partitions in `offsets` and keeps the others; writes only if something changes.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub fn update(&self, offsets: impl IntoIterator<Item = (TopicPartition, Offset)>) -> Result<(), LogError> {
        self.update_locked(&mut lock(&self.state), offsets)
    }

    /// [`OffsetCheckpoint::update`] with the offsets that `gather` collects outside the lock. A partition whose offset
    /// is lowered or removed while `gather` runs is left for the next time; the others are written.
    ///
    /// # Errors
    /// As [`OffsetCheckpoint::update`].
    pub fn update_gathered(&self, gather: impl FnOnce() -> Vec<(TopicPartition, Offset)>) -> Result<(), LogError> {
        lock(&self.state).gathering += 1;
        let gathered = gather();
        let mut state = lock(&self.state);
        let (still_true, _): (Vec<_>, Vec<_>) =
            gathered.into_iter().partition(|(partition, _)| !state.cut_meanwhile.contains(partition));
        state.gathering -= 1;
        if state.gathering == 0 {
            state.cut_meanwhile.clear();
        }
        self.update_locked(&mut state, still_true)
    }

    fn update_locked(
        &self,
        state: &mut Offsets,
        offsets: impl IntoIterator<Item = (TopicPartition, Offset)>,
    ) -> Result<(), LogError> {
        let mut wanted = state.durable.clone();
        wanted.extend(offsets);
        if wanted == state.durable && state.forgotten.is_empty() {
            return Ok(());
        }
        self.write(state, wanted)
    }

    /// Lowers offsets to at most these, durably, before the logs themselves are cut: with one write for all.
    ///
    /// # Errors
    /// As [`OffsetCheckpoint::update`].
    pub fn lower(&self, offsets: impl IntoIterator<Item = (TopicPartition, Offset)>) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let mut lowered = Vec::new();
        for (partition, offset) in offsets {
            state.note_cut(&partition);
            if state.durable.get(&partition).is_some_and(|stored| *stored > offset) {
                lowered.push((partition, offset));
            }
        }
        if lowered.is_empty() {
            return Ok(());
        }
        let mut wanted = state.durable.clone();
        wanted.extend(lowered);
        self.write(&mut state, wanted)
    }

    /// Removes a partition whose directory is gone, in memory only; the next change updates the file. An entry of a
    /// deleted partition does no harm, and a thousand deletes cost no write. Before a partition of the same name is
    /// created, [`OffsetCheckpoint::remove`] must be called.
    pub fn forget(&self, partition: &TopicPartition) {
        let mut state = lock(&self.state);
        state.note_cut(partition);
        if state.durable.remove(partition).is_some() {
            state.forgotten.insert(partition.clone());
        }
    }

    /// Removes `partition`, durably. If the file does not contain it, as for most new partitions, this costs one
    /// lookup.
    ///
    /// # Errors
    /// As [`OffsetCheckpoint::update`].
    pub fn remove(&self, partition: &TopicPartition) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        state.note_cut(partition);
        if !state.durable.contains_key(partition) && !state.forgotten.contains(partition) {
            return Ok(());
        }
        let mut wanted = state.durable.clone();
        wanted.remove(partition);
        self.write(&mut state, wanted)
    }

    fn write(&self, state: &mut Offsets, wanted: BTreeMap<TopicPartition, Offset>) -> Result<(), LogError> {
        self.disk
            .write_atomically(&self.path, offsets_text(&wanted).as_bytes())
            .map_err(LogError::io("write", &self.path))?;
        state.durable = wanted;
        state.forgotten.clear();
        Ok(())
    }
}

fn offsets_text(offsets: &BTreeMap<TopicPartition, Offset>) -> String {
    use std::fmt::Write;
    let mut text = format!("0\n{}\n", offsets.len());
    for (partition, offset) in offsets {
        let _ = writeln!(text, "{} {} {offset}", partition.topic, partition.partition); // Writing to a String cannot fail.
    }
    text
}

/// The content of a checkpoint file.
#[derive(Default)]
struct ReadOffsets {
    offsets: BTreeMap<TopicPartition, Offset>,
    /// Whether a line is invalid, or lines are missing.
    is_damaged: bool,
}

fn parse_offsets(bytes: &[u8]) -> ReadOffsets {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let count: Option<usize> = match lines.as_slice() {
        ["0", count, ..] => count.parse().ok(),
        _ => None,
    };
    let entries = || lines.iter().skip(if count.is_some() { 2 } else { 0 }).map(|line| parse_offset_line(line));
    let offsets: BTreeMap<_, _> = entries().flatten().collect();
    ReadOffsets { is_damaged: count != Some(offsets.len()) || entries().any(|entry| entry.is_none()), offsets }
}

fn parse_offset_line(line: &str) -> Option<(TopicPartition, Offset)> {
    let mut fields = line.split_whitespace();
    let (topic, partition, offset) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let is_whole =
        fields.next().is_none() && !topic.contains(char::REPLACEMENT_CHARACTER) && partition >= 0 && offset >= 0;
    is_whole.then(|| (TopicPartition::new(topic, partition), offset))
}

/// Reads a whole file; `None` if it does not exist.
pub(crate) fn read_if_exists(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    match disk.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("read", path)(error)),
    }
}

/// Writes a whole file without waiting for the disk: for content that can be rebuilt after a crash.
pub(crate) fn write_unsynced(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = disk.open(path, Open::Create)?;
    file.set_len(0)?;
    file.write_all_at(content, 0)
}

/// The text of `partition.metadata`.
pub(crate) fn partition_metadata_text(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

/// The topic id in a `partition.metadata`; `None` if the text is damaged (by a crash before its first fsync).
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

/// Whether `found` is `wanted` with a few bits changed. Ids are random, so two of them differ in about half of their
/// 128 bits: a file with nearly the right id is damaged; it does not belong to another topic.
pub(crate) fn is_damaged_copy(found: TopicId, wanted: TopicId) -> bool {
    /// One changed byte of the text changes at most this many bits of the id.
    const MOST_CHANGED_BITS: u32 = 8;
    found != wanted && (found.0.as_u128() ^ wanted.0.as_u128()).count_ones() <= MOST_CHANGED_BITS
}

/// `meta.properties`: the cluster and node that a log directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// `cluster.id`, in Kafka's form of 22 characters. `None` on a node of a new cluster whose quorum has no leader
    /// yet, which chooses it. Then the file has no such line; Kafka knows no such files.
    pub cluster_id: Option<String>,
    /// `node.id`.
    pub node_id: BrokerId,
    /// `directory.id`.
    pub directory_id: Uuid,
}

impl MetaProperties {
    /// The file's name in a log directory.
    pub const FILE_NAME: &'static str = "meta.properties";

    /// The text as Kafka 4 writes it (version 1), with a checksum in a comment: otherwise a changed bit in an id would
    /// go unnoticed.
    pub fn to_text(&self) -> String {
        let properties = self.properties_text();
        format!("{CHECKSUM_COMMENT}{:08x}\n{properties}", crc32c(properties.as_bytes()))
    }

    /// The lines that the checksum covers, in this order.
    pub(crate) fn properties_text(&self) -> String {
        let cluster_id = self.cluster_id.as_ref().map(|id| format!("cluster.id={id}\n")).unwrap_or_default();
        format!("{cluster_id}directory.id={}\nnode.id={}\nversion=1\n", uuid_to_base64(self.directory_id), self.node_id)
    }

    /// Reads what [`MetaProperties::to_text`] or Kafka wrote.
    ///
    /// # Errors
    /// A text that says what is missing or wrong.
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
        // Files that Kafka or a person wrote have no checksum.
        let checksum = text.lines().find_map(|line| line.trim().strip_prefix(CHECKSUM_COMMENT));
        let cluster_id = match get("cluster.id") {
            Ok(id) => Some(id.replace('\\', "")),
            Err(_) if checksum.is_some() => None,
            Err(missing) => return Err(missing),
        };
        let meta = MetaProperties {
            cluster_id,
            node_id: get("node.id")?.parse().map_err(|_| "node.id is not a number".to_owned())?,
            directory_id: uuid_from_base64(get("directory.id")?).map_err(|error| format!("directory.id: {error}"))?,
        };
        match checksum {
            Some(checksum) if checksum != format!("{:08x}", crc32c(meta.properties_text().as_bytes())) => {
                Err(format!("its checksum does not match (the line {CHECKSUM_COMMENT}…)"))
            }
            _ => Ok(meta),
        }
    }
}

const CHECKSUM_COMMENT: &str = "#crc32c=";

/// The clean-shutdown file (`CleanShutdownFileHandler`).
pub(crate) const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";

/// Its content: the broker epoch of the process that stops, or -1 if it was not registered (KIP-966).
pub(crate) fn clean_shutdown_text(broker_epoch: i64) -> String {
    format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}")
}

/// The broker epoch in a clean-shutdown file; -1 if there is none. Older files are empty.
pub(crate) fn clean_broker_epoch(content: &[u8]) -> i64 {
    let json = serde_json::from_slice::<serde_json::Value>(content).ok();
    json.and_then(|json| json.get("brokerEpoch")?.as_i64()).unwrap_or(-1)
}

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
        checkpoint.lower([(TopicPartition::new("b", 0), 5)]).unwrap();
        checkpoint.lower([(TopicPartition::new("c", 0), 5)]).unwrap();
        let again = OffsetCheckpoint::open(disk.clone(), path.clone()).unwrap();
        assert_eq!(again.get(&TopicPartition::new("b", 0)), Some(5));
        assert_eq!(again.get(&TopicPartition::new("c", 0)), None);
        again.remove(&TopicPartition::new("b", 0)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\na-x 1 3\n");
    }

    #[test]
    fn of_a_damaged_checkpoint_the_readable_lines_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery-point-offset-checkpoint");
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let whole = b"0\n3\na 0 1\nb 0 2\nc 0 3\n";
        let known = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let checkpoint = OffsetCheckpoint::open(disk.clone(), path.clone()).unwrap();
            ["a", "b", "c"].map(|topic| checkpoint.get(&TopicPartition::new(topic, 0)))
        };
        assert_eq!(known(whole), [Some(1), Some(2), Some(3)]);
        for at in 0..whole.len() {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 0x80;
            assert!(parse_offsets(&damaged).is_damaged, "{at}");
            let kept = known(&damaged).iter().flatten().count();
            assert!(kept >= 1 && (kept == 3 || at >= 3), "byte {at} costs {} lines", 3 - kept);
        }
        assert_eq!(known(b""), [None; 3]);
        assert_eq!(known(b"0\n3\na 0 1\nb 0 -2\nc 0 3 4\n"), [Some(1), None, None]);
    }

    #[test]
    fn a_partition_that_is_cut_while_offsets_are_gathered_does_not_hold_up_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let checkpoint = OffsetCheckpoint::open(disk, dir.path().join("c")).unwrap();
        let [cut, deleted, other] = ["cut", "deleted", "other"].map(|topic| TopicPartition::new(topic, 0));
        checkpoint.update([(cut.clone(), 9), (deleted.clone(), 9)]).unwrap();
        let gather = || {
            checkpoint.lower([(cut.clone(), 5)]).unwrap();
            checkpoint.forget(&deleted);
            vec![(cut.clone(), 10), (deleted.clone(), 10), (other.clone(), 10)]
        };
        checkpoint.update_gathered(gather).unwrap();
        let known = || [&cut, &deleted, &other].map(|partition| checkpoint.get(partition));
        assert_eq!(known(), [Some(5), None, Some(10)]);
        checkpoint.update_gathered(|| vec![(cut.clone(), 11), (deleted.clone(), 11)]).unwrap();
        assert_eq!(known(), [Some(11), Some(11), Some(10)], "only until they were gathered again");
    }

    #[test]
    fn a_partition_that_is_in_no_checkpoint_is_removed_without_a_write() {
        let (disk, path) = (crate::sim::SimDisk::new(1), PathBuf::from("/c"));
        let checkpoint = OffsetCheckpoint::open(Arc::new(disk.clone()), path).unwrap();
        checkpoint.update((0..100).map(|index| (TopicPartition::new("t", index), 1))).unwrap();
        // A forgotten partition that is still in the file costs no write when another one is created.
        checkpoint.forget(&TopicPartition::new("t", 7));
        let syncs = disk.syncs();
        checkpoint.remove(&TopicPartition::new("new", 0)).unwrap();
        checkpoint.lower([(TopicPartition::new("t", 8), 1)]).unwrap();
        assert_eq!(disk.syncs(), syncs);
        checkpoint.remove(&TopicPartition::new("t", 7)).unwrap();
        assert_eq!(disk.syncs(), syncs + 1);
    }

    #[test]
    fn meta_properties_of_kafka_are_read() {
        let text = b"#\n#Thu Nov 05 10:00:00 UTC 2026\ncluster.id=5L6g3nShT-eMCtK--X86sw\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=1\nversion=1\n";
        let meta = MetaProperties::parse(text).unwrap();
        assert_eq!(
            (meta.cluster_id.as_deref().unwrap(), meta.node_id, meta.directory_id.as_u128()),
            ("5L6g3nShT-eMCtK--X86sw", 1, 1)
        );
        assert_eq!(MetaProperties::parse(meta.to_text().as_bytes()), Ok(meta));
        assert!(MetaProperties::parse(b"version=0\n").is_err());
        assert!(MetaProperties::parse(b"version=1\ncluster.id=x\n").unwrap_err().contains("node.id"));
    }

    #[test]
    fn a_changed_bit_in_meta_properties_is_noticed_or_changes_nothing() {
        let meta = MetaProperties {
            cluster_id: Some("5L6g3nShT-eMCtK--X86sw".into()),
            node_id: 1,
            directory_id: Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
        };
        let whole = meta.to_text().into_bytes();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                MetaProperties::parse(&damaged).is_err_and(|reason| !reason.is_empty())
                    || MetaProperties::parse(&damaged) == Ok(meta.clone()),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_changed_bit_in_a_topic_id_does_not_make_it_that_of_another_topic() {
        let id = TopicId(Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0));
        let whole = partition_metadata_text(id).into_bytes();
        let mut misread = 0;
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Some(found) = parse_partition_metadata(&damaged).filter(|found| *found != id) {
                assert!(is_damaged_copy(found, id), "bit {bit}");
                misread += 1;
            }
        }
        assert!(misread > 50, "{misread}");
        assert!(!is_damaged_copy(id, id));
        assert!(!is_damaged_copy(TopicId(Uuid::from_u128(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)), id));
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
