//! The counters of the running broker: relaxed atomics that are increased at the entry or exit of a step. They need no
//! locks and no allocation, and a reader does not block a writer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A number that only increases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of the broker.
#[derive(Debug)]
pub struct Metrics {
    /// The sums over all topics, including deleted ones.
    pub topics: TopicCounters,
    /// By API.
    pub requests: RequestCounters,
    /// By listener.
    pub listeners: Vec<Arc<ListenerCounters>>,
    limits: [Counter; Limit::ALL.len()],
}

impl Metrics {
    /// Counters that are all 0. `apis` are the keys and highest versions.
    pub fn new(apis: impl Iterator<Item = (i16, i16)>, listeners: impl Iterator<Item = String>) -> Metrics {
        Metrics {
            topics: TopicCounters::default(),
            requests: RequestCounters::new(apis),
            listeners: listeners.map(|name| Arc::new(ListenerCounters { name, ..Default::default() })).collect(),
            limits: Default::default(),
        }
    }

    /// The counters of a listener. For an unknown name it returns counters that nobody reads.
    pub fn listener(&self, name: &str) -> Arc<ListenerCounters> {
        self.listeners.iter().find(|listener| listener.name == name).cloned().unwrap_or_default()
    }

    /// Counts that a limit was reached.
    pub fn limit_reached(&self, limit: Limit) {
        self.limits[limit as usize].add(1);
    }

    /// How often each limit was reached, by its setting.
    pub fn limits_reached(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = Limit::ALL.iter().map(|limit| (limit.setting(), self.limits[*limit as usize].get()));
        let answered = ANSWERED_LIMITS.iter().map(|(setting, code)| (*setting, self.requests.errors_of(*code)));
        counted.chain(answered)
    }
}

/// Kafka's `BrokerTopicMetrics`, for one topic or all of them.
#[derive(Debug, Default)]
#[allow(missing_docs)] // The table of metrics describes them.
pub struct TopicCounters {
    pub messages_in: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub bytes_rejected: Counter,
    pub total_produce_requests: Counter,
    pub failed_produce_requests: Counter,
    pub total_fetch_requests: Counter,
    pub failed_fetch_requests: Counter,
}

/// The traffic of one listener.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ListenerCounters {
    pub name: String,
    pub opened: Counter,
    pub closed: Counter,
    pub bytes_received: Counter,
    pub bytes_sent: Counter,
}

/// Requests and errors by API.
#[derive(Debug)]
pub struct RequestCounters {
    /// Sorted by key.
    apis: Box<[ApiCounters]>,
    /// The position of a key's counters in `apis`; keys that are not supported have none.
    place: Box<[u8]>,
}

#[derive(Debug)]
struct ApiCounters {
    key: i16,
    versions: Box<[Counter]>,
    /// From [`FIRST_CODE`] on.
    errors: Box<[Counter]>,
}

/// UNKNOWN_SERVER_ERROR.
const FIRST_CODE: i16 = -1;
/// Higher than the last code of Kafka 4.3.
const LAST_CODE: i16 = 140;
const NO_POSITION: u8 = u8::MAX;

impl RequestCounters {
    fn new(apis: impl Iterator<Item = (i16, i16)>) -> Self {
        let counters = |count: i16| (0..count).map(|_| Counter::default()).collect();
        let api =
            |(key, max)| ApiCounters { key, versions: counters(max + 1), errors: counters(LAST_CODE - FIRST_CODE + 1) };
        let mut apis: Box<[ApiCounters]> = apis.map(api).collect();
        apis.sort_by_key(|api| api.key);
        let mut place = vec![NO_POSITION; apis.last().map_or(0, |last| last.key as usize + 1)];
        for (at, api) in apis.iter().enumerate() {
            place[api.key as usize] = at as u8;
        }
        RequestCounters { apis, place: place.into() }
    }

    #[inline]
    fn api(&self, key: i16) -> Option<&ApiCounters> {
        self.apis.get(usize::from(*self.place.get(usize::try_from(key).ok()?)?))
    }

    /// Counts a request.
    pub fn count(&self, key: i16, version: i16) {
        if let Some(counter) = self.api(key).and_then(|api| api.versions.get(version as usize)) {
            counter.add(1);
        }
    }

    /// Counts that a response has this code `times` times; code 0 means no error.
    pub fn count_errors(&self, key: i16, code: i16, times: u64) {
        let place = usize::try_from(i32::from(code) - i32::from(FIRST_CODE));
        if let (Some(api), Ok(place)) = (self.api(key), place)
            && let Some(counter) = api.errors.get(place)
        {
            counter.add(times);
        }
    }

    /// Key, version and count of the requests.
    pub fn requests(&self) -> impl Iterator<Item = (i16, i16, u64)> {
        let versions =
            self.apis.iter().flat_map(|api| (0..).zip(&api.versions).map(|(version, count)| (api.key, version, count)));
        versions.map(|(key, version, count)| (key, version, count.get())).filter(|(_, _, count)| *count > 0)
    }

    /// Key, code and count of the error codes in responses.
    pub fn errors(&self) -> impl Iterator<Item = (i16, i16, u64)> {
        let codes = self
            .apis
            .iter()
            .flat_map(|api| (FIRST_CODE..).zip(&api.errors).map(|(code, count)| (api.key, code, count)));
        codes.map(|(key, code, count)| (key, code, count.get())).filter(|(_, _, count)| *count > 0)
    }

    fn errors_of(&self, code: i16) -> u64 {
        self.apis.iter().map(|api| api.errors[(code - FIRST_CODE) as usize].get()).sum()
    }
}

/// Defines the limits: a name for the code, and the setting of the limit.
macro_rules! limits {
    ($($limit:ident $setting:literal;)*) => {
        /// A limit that can be reached without an error code in a response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Limit { $($limit),* }

        impl Limit {
            const ALL: &[Limit] = &[$(Limit::$limit),*];

            /// The name of the setting.
            pub fn setting(self) -> &'static str {
                match self { $(Limit::$limit => $setting),* }
            }
        }
    };
}

limits! {
    MaxConnections "max.connections";
    MaxConnectionsPerIp "max.connections.per.ip";
    ConnectionsMaxIdleMs "connections.max.idle.ms";
    SocketRequestMaxBytes "socket.request.max.bytes";
    QueuedMaxRequestBytes "queued.max.request.bytes";
    QueuedMaxResponseBytes "ottla.queued.max.response.bytes";
    FrameDeadlineMs "ottla.frame.deadline.ms";
}

/// Limits that cause an error code in a response; the number of these codes is their count.
const ANSWERED_LIMITS: &[(&str, i16)] =
    &[("max.message.bytes", 10), ("offset.metadata.max.bytes", 12), ("segment.bytes", 18), ("group.max.size", 81)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_errors_are_counted_by_api() {
        let metrics = Metrics::new([(18, 4), (0, 13)].into_iter(), ["A".to_owned()].into_iter());
        metrics.requests.count(0, 9);
        metrics.requests.count(0, 9);
        metrics.requests.count(18, 0);
        metrics.requests.count_errors(0, 0, 5);
        metrics.requests.count_errors(0, 10, 2);
        metrics.requests.count_errors(18, -1, 1);
        // Unsupported keys and versions are not counted and do no harm.
        for (key, version) in [(1, 0), (99, 0), (-1, 0), (0, 14), (0, -1)] {
            metrics.requests.count(key, version);
            metrics.requests.count_errors(key, 1000, 1);
        }
        assert_eq!(metrics.requests.requests().collect::<Vec<_>>(), [(0, 9, 2), (18, 0, 1)]);
        assert_eq!(metrics.requests.errors().collect::<Vec<_>>(), [(0, 0, 5), (0, 10, 2), (18, -1, 1)]);
        metrics.limit_reached(Limit::MaxConnections);
        let reached: Vec<_> = metrics.limits_reached().filter(|(_, count)| *count > 0).collect();
        assert_eq!(reached, [("max.connections", 1), ("max.message.bytes", 2)]);
    }

    #[test]
    fn a_listener_is_found_by_its_name() {
        let metrics = Metrics::new([].into_iter(), ["A".to_owned(), "B".to_owned()].into_iter());
        metrics.listener("B").opened.add(2);
        assert_eq!(metrics.listeners[1].opened.get(), 2);
        assert_eq!(metrics.listener("C").name, "");
    }
}
