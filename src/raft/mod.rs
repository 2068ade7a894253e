//! The metadata quorum: raft-rs decides; this module stores its log and passes requests to it.

mod cached_image;
mod channel;
pub mod control_records;
pub mod driver;
mod handle;
mod logger;
mod message;
pub mod metadata_log;
mod node;
pub mod quorum_state;
mod requests;
pub mod snapshot;
pub mod snapshot_fetch;
pub mod storage;
mod transport;

pub use cached_image::{CachedImage, OpenStore, open_store};
pub use channel::{Active, ControllerChannel};
pub use driver::{NoTransport, Options, Transport, start};
pub use handle::{ControllerHandle, QuorumGauges, QuorumInfo, ReplicaInfo, Unavailable};
pub use metadata_log::MetadataLog;
pub use requests::BrokerRequest;
pub use transport::QuorumTransport;
