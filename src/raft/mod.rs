//! The metadata quorum: raft-rs decides; this module stores its log and passes requests to it.

mod addresses;
mod cached_image;
mod channel;
pub mod control_records;
pub mod driver;
mod follow;
mod handle;
mod join;
mod logger;
mod message;
pub mod metadata_log;
mod node;
mod observers;
pub mod quorum_state;
mod requests;
pub mod snapshot;
pub mod snapshot_fetch;
pub mod storage;
mod transport;
mod voters;

pub use addresses::Addresses;
pub use cached_image::{CachedImage, OpenStore, open_store};
pub use channel::{Active, ControllerChannel};
pub use driver::{
    ClusterIdentity, FetchedContent, MetadataFetch, MetadataFetchError, MetadataFetchReply, MetadataFetched, Options,
    Transport, VoterChange, VoterChangeError, start,
};
pub use follow::follow;
pub use handle::{ControllerHandle, QuorumGauges, QuorumInfo, ReplicaInfo, Unavailable};
pub use join::{Join, JoinMark};
pub use metadata_log::MetadataLog;
pub use requests::{BrokerRequest, tell_offset};
pub use transport::{QuorumTransport, SelfAddress};
pub use voters::Identity;
