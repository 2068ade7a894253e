//! Requests to the active controller, wherever it is.
//!
//! Owns the connection to the controller of another node. Leaves retries to its users.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::AlterPartitionRequest,
    protocol::{Decodable, Request},
};
use tokio::sync::Mutex;

use super::{handle::ControllerHandle, requests::BrokerRequest};
use crate::{
    config::Endpoint,
    controller::ApiError,
    env::Env,
    peer::{Peer, PeerError, Wire},
    types::BrokerId,
};

/// A connection that takes longer for one request is given up.
const LIMIT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Where the active controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// On this node.
    Here,
    /// On another node.
    At(BrokerId),
}

/// See the head of the file.
pub struct ControllerChannel {
    env: Env,
    own: BrokerId,
    controller: ControllerHandle,
    connection: Arc<Mutex<Option<(BrokerId, Peer)>>>,
}

impl ControllerChannel {
    /// A channel of the node `own`.
    pub fn new(env: &Env, own: BrokerId, controller: ControllerHandle) -> Self {
        ControllerChannel { env: env.clone(), own, controller, connection: Arc::default() }
    }

    /// The controller of this node, which is active or not.
    pub fn local(&self) -> &ControllerHandle {
        &self.controller
    }

    /// Where the active controller is, as far as this node knows.
    pub fn active(&self) -> Option<Active> {
        let leader = self.controller.leader()?;
        Some(if leader == self.own { Active::Here } else { Active::At(leader) })
    }

    /// Asks the active controller.
    ///
    /// # Errors
    /// The controller's own, or NOT_CONTROLLER if it is not known or cannot be reached; then the request may be handled
    /// nevertheless.
    pub async fn ask<R: BrokerRequest>(&self, request: R) -> Result<R::Value, ApiError> {
        match self.active() {
            None => Err(ApiError::code_only(ResponseError::NotController)),
            Some(Active::Here) => self.controller.call(request).await?,
            Some(Active::At(node)) => {
                let wire = request.to_wire(&self.controller.image());
                R::value(self.call(node, R::VERSION, &wire).await?)
            }
        }
    }

    /// Sends a request to the controller on another node.
    ///
    /// # Errors
    /// NOT_CONTROLLER if it cannot be reached; the request may be handled nevertheless.
    pub async fn call<R: Request>(&self, node: BrokerId, version: i16, request: &R) -> Result<R::Response, ApiError> {
        let encoded = Wire::encode(version, request);
        let (wire, body) = encoded.map_err(|_| ApiError::code_only(ResponseError::UnknownServerError))?;
        let mut response = self.exchange(node, wire, body.freeze()).await?;
        R::Response::decode(&mut response, version).map_err(|error| {
            tracing::warn!(node, %error, "a response of the active controller cannot be read");
            ApiError::code_only(ResponseError::UnknownServerError)
        })
    }

    /// Sends the encoded body of a request to the controller on another node. Returns the body of its response.
    ///
    /// # Errors
    /// As [`ControllerChannel::call`].
    pub async fn exchange(&self, node: BrokerId, wire: Wire, body: Bytes) -> Result<Bytes, ApiError> {
        let exchange = Exchange {
            env: self.env.clone(),
            endpoint: match wire.key {
                AlterPartitionRequest::KEY if planted!("K9") => self.data_listener(node),
                _ => self.controller.addresses().of(node),
            },
            connection: self.connection.clone(),
            node,
        };
        // The caller may run on a thread that serves no connections.
        let response = self.env.tasks.run("ask the active controller", exchange.run(wire, body)).await;
        response.unwrap_or_else(|| Err(ApiError::code_only(ResponseError::NotController)))
    }

    /// Where a node serves clients, which is not where its controller listens; for a planted bug.
    fn data_listener(&self, node: BrokerId) -> Option<Endpoint> {
        let image = self.controller.image();
        let endpoint = image.broker(node)?.endpoints.first()?;
        Some(Endpoint { host: endpoint.host.clone(), port: endpoint.port })
    }
}

/// One request and its response.
struct Exchange {
    env: Env,
    endpoint: Option<Endpoint>,
    connection: Arc<Mutex<Option<(BrokerId, Peer)>>>,
    node: BrokerId,
}

impl Exchange {
    async fn run(self, wire: Wire, body: Bytes) -> Result<Bytes, ApiError> {
        let node = self.node;
        // One request at a time, as with Kafka's channel to the controller.
        let mut connection = self.connection.lock().await;
        let peer = connection.take().filter(|(connected, _)| *connected == node).map(|(_, peer)| peer);
        let exchange = async {
            let mut peer = match peer {
                Some(peer) => peer,
                None => self.connect().await?,
            };
            let response = peer.exchange(wire, &body).await?;
            Ok::<_, PeerError>((peer, response))
        };
        let result = match self.env.within(LIMIT, exchange).await {
            Some(result) => result.map_err(|error| error.to_string()),
            None => Err(format!("no response within {LIMIT:?}")),
        };
        match result {
            Ok((peer, response)) => {
                *connection = Some((node, peer));
                Ok(response)
            }
            Err(error) => {
                tracing::debug!(node, %error, "cannot ask the active controller");
                Err(ApiError::code_only(ResponseError::NotController))
            }
        }
    }

    async fn connect(&self) -> Result<Peer, PeerError> {
        let Some(Endpoint { host, port }) = &self.endpoint else {
            let unknown = std::io::Error::new(std::io::ErrorKind::NotFound, "it is not a voter");
            return Err(PeerError::Resolve(format!("node {}", self.node), unknown));
        };
        Peer::connect(&self.env, host, *port, "ottla-broker", MAX_RESPONSE_BYTES).await
    }
}
