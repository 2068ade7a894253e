//! Deletes the offsets of deleted topics in the background, one page of groups at a time. The metadata thread only
//! adds the topics to a queue.

use std::sync::Arc;

use super::{Cell, CellState, Inner, Input, Output, unexpected};
use crate::{coordinator::group::DeletedTopics, env::lock, types::TopicId};

/// The topics whose offsets must be deleted.
#[derive(Default)]
pub(super) struct Queue {
    topics: Vec<(Arc<str>, TopicId)>,
    /// A sweep task is running, and checks the queue again before it ends.
    is_task_running: bool,
}

impl Inner {
    /// Adds the topics to the queue and returns at once.
    pub(super) fn enqueue_deleted(self: &Arc<Self>, topics: Vec<(Arc<str>, TopicId)>) {
        let mut queue = lock::lock(&self.deleted);
        queue.topics.extend(topics);
        if std::mem::replace(&mut queue.is_task_running, true) {
            return;
        }
        drop(queue);
        let inner = self.clone();
        self.env.tasks.spawn_until_stopped("group-coordinator-sweep", async move { inner.sweep().await });
    }

    fn next_deleted(&self) -> Option<Vec<(Arc<str>, TopicId)>> {
        let mut queue = lock::lock(&self.deleted);
        queue.is_task_running = !queue.topics.is_empty();
        queue.is_task_running.then(|| std::mem::take(&mut queue.topics))
    }

    async fn sweep(self: &Arc<Self>) {
        while let Some(topics) = self.next_deleted() {
            let deleted: Arc<DeletedTopics> = Arc::new(topics.iter().cloned().collect());
            let cells: Vec<Arc<Cell>> = lock::read(&self.cells).values().cloned().collect();
            for cell in cells {
                if !cell.keep_for_load(&topics) {
                    self.sweep_cell(&cell, &deleted).await;
                }
            }
        }
    }

    async fn sweep_cell(self: &Arc<Self>, cell: &Arc<Cell>, deleted: &Arc<DeletedTopics>) {
        let mut from = None;
        loop {
            let input = Input::TopicsDeleted { topics: deleted.clone(), from };
            from = match self.perform_in(cell, input).await {
                Ok(Output::Swept(Some(next))) => Some(next),
                Ok(Output::Swept(None)) => return,
                Ok(other) => unexpected(&other),
                Err(error) => {
                    tracing::debug!(partition = cell.partition, %error, "cannot delete the offsets of deleted topics now");
                    return;
                }
            };
            self.env.tasks.yield_now().await;
        }
    }
}

impl Cell {
    /// If the partition is loading, keeps the topics for the end of the load; else returns false.
    fn keep_for_load(&self, topics: &[(Arc<str>, TopicId)]) -> bool {
        match &mut *self.lock() {
            CellState::Loading { deleted_topics, .. } => {
                deleted_topics.extend_from_slice(topics);
                true
            }
            CellState::Active(_) | CellState::Failed => false,
        }
    }
}
