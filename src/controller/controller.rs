//! The controller's requests, and the function that decides each.

use super::{
    Step, StepContext, brokers, client_quotas, configs, directories, elections, features, isr, producer_ids, topics,
};
use crate::metadata::image::MetadataImage;

macro_rules! requests {
    ($( $(#[$doc:meta])* $variant:ident($request:ty) -> $reply:ty = $step:path; )*) => {
        /// A request to the controller.
        #[derive(Debug, Clone)]
        pub enum Request { $( $(#[$doc])* $variant($request), )* }

        /// The reply to the request of the same name.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Reply { $( $variant($reply), )* }

        /// Decides one request. A pure function except for the entropy in `context`.
        pub fn step(image: &MetadataImage, context: &mut StepContext<'_>, request: Request) -> Step<Reply> {
            match request {
                $( Request::$variant(request) => {
                    let step = $step(image, context, request);
                    Step { records: step.records, reply: Reply::$variant(step.reply) }
                } )*
            }
        }

        $( impl From<$request> for Request {
            fn from(request: $request) -> Self { Request::$variant(request) }
        }

        impl ControllerRequest for $request {
            type Reply = $reply;
            fn reply(reply: Reply) -> Option<$reply> {
                match reply {
                    Reply::$variant(reply) => Some(reply),
                    _ => None,
                }
            }
        } )*
    };
}

/// Ties a request to the type of its reply.
pub trait ControllerRequest: Into<Request> {
    type Reply;
    /// Returns the typed reply; None if `reply` belongs to another kind of request, which is a bug.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

requests! {
    CreateTopics(topics::CreateTopics) -> topics::CreateTopicsReply = topics::create_topics;
    DeleteTopics(topics::DeleteTopics) -> topics::DeleteTopicsReply = topics::delete_topics;
    CreatePartitions(topics::CreatePartitions) -> topics::CreatePartitionsReply = topics::create_partitions;
    IncrementalAlterConfigs(configs::IncrementalAlterConfigs) -> configs::AlterConfigsReply = configs::incremental_alter_configs;
    /// AlterConfigs, which replaces all settings of a resource.
    LegacyAlterConfigs(configs::LegacyAlterConfigs) -> configs::AlterConfigsReply = configs::legacy_alter_configs;
    AlterClientQuotas(client_quotas::AlterClientQuotas) -> client_quotas::AlterClientQuotasReply = client_quotas::alter_client_quotas;
    AllocateProducerIds(producer_ids::AllocateProducerIds) -> producer_ids::AllocateProducerIdsReply = producer_ids::allocate_producer_ids;
    UpdateFeatures(features::UpdateFeatures) -> features::UpdateFeaturesReply = features::update_features;
    RegisterBroker(brokers::RegisterBroker) -> brokers::RegisterBrokerReply = brokers::register_broker;
    BrokerHeartbeat(brokers::BrokerHeartbeat) -> brokers::BrokerHeartbeatReply = brokers::broker_heartbeat;
    UnregisterBroker(brokers::UnregisterBroker) -> brokers::UnregisterBrokerReply = brokers::unregister_broker;
    AssignReplicasToDirs(directories::AssignReplicasToDirs) -> directories::AssignReplicasToDirsReply = directories::assign_replicas_to_dirs;
    AlterPartition(isr::AlterPartition) -> isr::AlterPartitionReply = isr::alter_partition;
    ElectLeaders(elections::ElectLeaders) -> elections::ElectLeadersReply = elections::elect_leaders;
    RebalanceLeaders(elections::RebalanceLeaders) -> elections::RebalanceLeadersReply = elections::rebalance_leaders;
    ElectUncleanLeaders(elections::ElectUncleanLeaders) -> elections::ElectUncleanLeadersReply = elections::elect_unclean_leaders;
}
