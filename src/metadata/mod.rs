//! The metadata of the cluster: Kafka's metadata records, the immutable image that is built from them, its store and
//! its publisher.

/// The feature by which Kafka versions its metadata records.
pub const METADATA_VERSION_FEATURE: &str = "metadata.version";

/// Its finalized level says whether the voters are stored in the log (KIP-853). It comes from a control record, never
/// from a FeatureLevelRecord.
pub const KRAFT_VERSION_FEATURE: &str = "kraft.version";

/// At level 1 `min.insync.replicas` is a setting of topics and of the whole cluster only (KIP-966).
pub const ELR_FEATURE: &str = "eligible.leader.replicas.version";

pub mod delta;
pub mod image;
pub mod liveness;
pub mod publisher;
pub mod records;
pub mod store;
pub mod wire;
