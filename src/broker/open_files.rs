//! Plans, at the start, how segments, connections and the process itself share the limit of open files.

/// How many files may be open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFilesPlan {
    /// Files of segments.
    pub(super) segments: usize,
    /// Connections of clients.
    pub(super) connections: usize,
}

/// Files that the process always needs: for its log, timers and listeners, and for a connection that is about to be
/// refused.
const RESERVED: usize = 48;
/// Files that each log directory needs: for its lock, its checkpoints, and the directories that its flushers sync.
const RESERVED_PER_DIR: usize = 16;
/// The broker cannot work with fewer open segments.
const LEAST_SEGMENTS: usize = 16;

impl OpenFilesPlan {
    /// Returns `wanted` if the limit allows it. If not, segments get at least a third of the files that the process
    /// leaves, since they are reopened on demand, and connections get the rest.
    pub(super) fn new(limit: usize, log_dirs: usize, wanted: OpenFilesPlan) -> OpenFilesPlan {
        let reserved = (RESERVED + log_dirs * RESERVED_PER_DIR).min(limit / 2);
        let shared = limit - reserved;
        let for_segments = (shared / 3).max(shared.saturating_sub(wanted.connections)).max(LEAST_SEGMENTS);
        let segments = wanted.segments.min(for_segments);
        let connections = wanted.connections.min(shared.saturating_sub(segments).max(1));
        OpenFilesPlan { segments, connections }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_shared_by_a_plan() {
        // Limit, log directories, wanted segments and connections, planned segments and connections.
        let rows = [
            (1 << 20, 1, (1024, 10_000), (1024, 10_000)),
            (12_000, 2, (1024, 10_000), (1024, 10_000)),
            (4096, 1, (1024, 10_000), (1024, 3008)),
            (4096, 1, (1024, i32::MAX as usize), (1024, 3008)),
            (1024, 1, (1024, 10_000), (320, 640)),
            (1024, 1, (1024, 100), (860, 100)),
            (1024, 8, (1024, 10_000), (282, 566)),
            (400, 1, (1024, 10_000), (112, 224)),
            (64, 1, (1024, 10_000), (16, 16)),
        ];
        for (limit, log_dirs, (segments, connections), (planned_segments, planned_connections)) in rows {
            let plan = OpenFilesPlan::new(limit, log_dirs, OpenFilesPlan { segments, connections });
            let expected = OpenFilesPlan { segments: planned_segments, connections: planned_connections };
            assert_eq!(plan, expected, "limit {limit}, {log_dirs} directories");
        }
    }

    #[test]
    fn what_is_planned_stays_below_the_limit_and_leaves_some_for_the_process() {
        for limit in 64..5000 {
            for log_dirs in [1, 3, 12] {
                for connections in [10, 300, 10_000] {
                    let wanted = OpenFilesPlan { segments: 1024, connections };
                    let plan = OpenFilesPlan::new(limit, log_dirs, wanted);
                    assert!(plan.segments + plan.connections + limit.min(128) / 4 <= limit, "{limit}: {plan:?}");
                    assert!(plan.segments >= 16 && plan.connections >= 10.min(connections), "{limit}: {plan:?}");
                }
            }
        }
    }
}
