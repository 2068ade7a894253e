//! The accept loop and the limits of the number of connections.
//!
//! A connection over a limit is closed at once, as Kafka does per address. At most one log line per second reports it.
//! Leaves the work on a connection to `connection.rs`.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::connection::{self, ConnectionLimits};
use crate::{
    api::{ConnectionInfo, ListenerKind, Parts},
    env::{
        Net,
        lock::lock,
        net::{Listener, Stream},
    },
    log::LogLineLimit,
    metrics::{Limit, ListenerCounters},
};

/// The maximum numbers of connections. They can change at run time; open connections stay open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionQuota {
    /// `max.connections`.
    pub total: usize,
    /// `max.connections.per.ip`.
    pub per_ip: usize,
    /// `max.connections.per.ip.overrides`.
    pub per_ip_overrides: HashMap<IpAddr, usize>,
}

/// The limits of connections and of the memory that they may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The initial limits of the number of connections.
    pub connections: ConnectionQuota,
    /// `socket.request.max.bytes`.
    pub request_bytes: usize,
    /// `queued.max.request.bytes`: the size of all frames that are being read or processed, over all connections.
    /// `None` means no limit.
    pub queued_request_bytes: Option<usize>,
    /// `ottla.queued.max.response.bytes`: the size of all responses in memory that are not written yet, over all
    /// connections.
    pub queued_response_bytes: usize,
    /// `connections.max.idle.ms`. `None` means no limit.
    pub idle: Option<Duration>,
    /// The maximum time for a started frame to arrive.
    pub frame_deadline: Duration,
}

/// A bound address that does not accept connections yet, so that no client is served before the broker is ready.
pub struct Bound {
    listener: Box<dyn Listener>,
    name: Arc<str>,
    kind: ListenerKind,
    address: SocketAddr,
}

/// [`Limits`] and their current use, shared by all listeners.
pub struct SharedLimits {
    connection: Arc<ConnectionLimits>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    allowed: ConnectionQuota,
    total: usize,
    per_ip: HashMap<IpAddr, usize>,
    refused: u64,
    last_report: Duration,
}

impl SharedLimits {
    /// Limits without any connections.
    pub fn new(limits: Limits) -> Arc<SharedLimits> {
        let connection = Arc::new(ConnectionLimits::new(&limits));
        let open = Mutex::new(Open { allowed: limits.connections, ..Open::default() });
        Arc::new(SharedLimits { connection, open })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }

    /// Changes the limits for new connections.
    pub fn allow(&self, connections: ConnectionQuota) {
        self.open().allowed = connections;
    }

    /// Returns a place for a connection from `ip`, or the limit that is reached.
    fn take(self: &Arc<Self>, ip: IpAddr, counters: &Arc<ListenerCounters>) -> Result<Place, Limit> {
        let mut open = self.open();
        let most = open.allowed.per_ip_overrides.get(&ip).copied().unwrap_or(open.allowed.per_ip);
        if open.total >= open.allowed.total {
            return Err(Limit::MaxConnections);
        }
        if open.per_ip.get(&ip).copied().unwrap_or_default() >= most {
            return Err(Limit::MaxConnectionsPerIp);
        }
        *open.per_ip.entry(ip).or_default() += 1;
        open.total += 1;
        counters.opened.add(1);
        Ok(Place { limits: self.clone(), ip, counters: counters.clone() })
    }

    fn report_refusal(&self, from: SocketAddr, limit: &str, now: Duration) {
        let mut open = self.open();
        open.refused += 1;
        if now >= open.last_report + Duration::from_secs(1) {
            tracing::info!(%from, limit, refused = open.refused, "closed connections over the limit");
            open.last_report = now;
            open.refused = 0;
        }
    }
}

/// The place of one connection. It is free again when this is dropped.
struct Place {
    limits: Arc<SharedLimits>,
    ip: IpAddr,
    counters: Arc<ListenerCounters>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counters.closed.add(1);
        let mut open = self.limits.open();
        open.total -= 1;
        if let Some(count) = open.per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.per_ip.remove(&self.ip);
            }
        }
    }
}

impl Bound {
    /// Binds an address for the listener `name`; with port 0 the system chooses the port.
    ///
    /// # Errors
    /// The address is in use, or does not belong to this machine.
    pub fn bind(net: &dyn Net, name: &str, kind: ListenerKind, address: SocketAddr) -> io::Result<Bound> {
        let listener = net.listen(address)?;
        let address = listener.local_addr()?;
        Ok(Bound { listener, name: name.into(), kind, address })
    }

    /// The address, with the port that the system has chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until the network tasks are stopped.
    pub fn serve(self, parts: &Arc<Parts>, limits: &Arc<SharedLimits>) {
        let accepting = Accepting {
            listener: self.listener,
            counters: parts.metrics.listener(&self.name),
            name: self.name,
            kind: self.kind,
            parts: parts.clone(),
            limits: limits.clone(),
            failures: LogLineLimit::default(),
        };
        parts.network.spawn_until_stopped("accept", async move { accepting.run().await });
    }
}

struct Accepting {
    listener: Box<dyn Listener>,
    name: Arc<str>,
    kind: ListenerKind,
    counters: Arc<ListenerCounters>,
    parts: Arc<Parts>,
    limits: Arc<SharedLimits>,
    failures: LogLineLimit,
}

impl Accepting {
    async fn run(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => self.start(stream, from),
                Err(error) => {
                    let clock = &self.parts.env.clock;
                    // Usually the system is out of file descriptors. Connections that end will free some.
                    if let Some(suppressed) = self.failures.admit(clock.monotonic()) {
                        tracing::error!(%error, listener = %self.name, suppressed, "cannot accept a connection");
                    }
                    clock.sleep_until(clock.monotonic() + Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn start(&self, stream: Box<dyn Stream>, from: SocketAddr) {
        let place = match self.limits.take(from.ip().to_canonical(), &self.counters) {
            Ok(place) => place,
            Err(limit) => {
                self.parts.metrics.limit_reached(limit);
                return self.limits.report_refusal(from, limit.setting(), self.parts.env.clock.monotonic());
            }
        };
        let Ok(local_address) = stream.local_addr() else { return };
        let info = Arc::new(ConnectionInfo::new(from, local_address, self.name.clone(), self.kind));
        let (parts, limits) = (self.parts.clone(), self.limits.connection.clone());
        self.parts.network.spawn("connection", async move {
            let _place = place;
            connection::serve(stream, info, parts, limits).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(total: usize, per_ip: usize, overrides: &[(&str, usize)]) -> ConnectionQuota {
        let per_ip_overrides = overrides.iter().map(|(ip, most)| (ip.parse().unwrap(), *most)).collect();
        ConnectionQuota { total, per_ip, per_ip_overrides }
    }

    #[test]
    fn inv_s2_connections_keep_to_a_quota_that_changes_under_them() {
        let limits = SharedLimits::new(Limits {
            connections: quota(4, 2, &[("::1", 3)]),
            request_bytes: 1,
            queued_request_bytes: Some(1),
            queued_response_bytes: 1,
            idle: None,
            frame_deadline: Duration::MAX,
        });
        let counters = Arc::default();
        let take = |ip: &str| limits.take(ip.parse().unwrap(), &counters);
        let a = [take("10.0.0.1").unwrap(), take("10.0.0.1").unwrap()];
        assert_eq!(take("10.0.0.1").err(), Some(Limit::MaxConnectionsPerIp));
        let b = [take("::1").unwrap(), take("::1").unwrap()];
        assert_eq!(take("::1").err(), Some(Limit::MaxConnections));
        limits.allow(quota(10, 1, &[("::1", 3)]));
        drop(b);
        assert_eq!(take("10.0.0.1").err(), Some(Limit::MaxConnectionsPerIp), "two are open and one is allowed");
        drop(a);
        let _a = take("10.0.0.1").unwrap();
        assert_eq!(take("10.0.0.1").err(), Some(Limit::MaxConnectionsPerIp));
        let _b: Vec<_> = (0..3).map(|_| take("::1").unwrap()).collect();
        assert_eq!(take("::1").err(), Some(Limit::MaxConnectionsPerIp));
        limits.allow(quota(10, 0, &[]));
        assert_eq!(take("10.0.0.2").err(), Some(Limit::MaxConnectionsPerIp));
    }
}
