//! The HTTP pages of a broker, for monitoring and for supervisors: /metrics, /health and /ready.
//!
//! [`Console`] owns the listening socket and the tasks that serve it. It starts before the broker's parts exist and
//! stops after them, so that a probe gets a response while the broker starts and stops. `http.rs` handles HTTP and its
//! limits, `pages.rs` chooses the page, `health.rs` checks the broker, and `scrape.rs` writes the metrics.

mod health;
mod http;
mod pages;
mod scrape;

use std::{io, net::SocketAddr, sync::Arc};

pub use health::{ALL_DIRS_OFFLINE, METADATA_DIR_OFFLINE, QUORUM_FAILED};

use crate::{
    api::Parts,
    env::{Env, Tasks},
};

/// The pages of one broker. Dropping it stops them.
pub struct Console {
    address: SocketAddr,
    tasks: Tasks,
    pages: Arc<pages::Pages>,
}

impl Console {
    /// Listens on an address and serves the pages there; with port 0 the system chooses the port.
    ///
    /// # Errors
    /// The address is in use, or does not belong to this machine.
    pub fn start(env: &Env, address: SocketAddr) -> io::Result<Console> {
        let listener = env.net.listen(address)?;
        let address = listener.local_addr()?;
        let tasks = env.tasks.new_group();
        let pages = Arc::new(pages::Pages::default());
        let server = http::Server { clock: env.clock.clone(), tasks: tasks.clone(), pages: pages.clone() };
        tasks.spawn_until_stopped("accept on the console", server.run(listener));
        Ok(Console { address, tasks, pages })
    }

    /// The address with the port that the system has chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Must be called when the broker has started. From now on the pages show its state.
    pub fn set_started(&self, parts: &Arc<Parts>) {
        self.pages.set_started(parts);
    }

    /// Closes the listener and all its connections.
    pub async fn stop(&self) {
        self.tasks.shutdown().await;
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
