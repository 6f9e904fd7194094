//! What the path of a reading stands on: the real world, or a simulated one that runs the same wiring.

use anyhow::Context;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config;
use crate::engine_thread::EngineThread;
use crate::mqtt::{self, Client, Link, Role};
use crate::recorder::Rows;
use crate::store::{Past, Store};
use crate::training;

/// The ends of the path, and what it cannot do by itself.
pub(crate) trait World: Clone + Send + Sync + 'static {
    /// Where readings are kept.
    type Store: Rows + Past + Clone;
    /// The half of a connection that requests are made on.
    type Client: Client;
    /// The half that is polled.
    type Link: Link;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// The wall clock.
    fn clock(&self) -> Clock;

    /// Both halves of a connection, which is made when first polled.
    ///
    /// # Errors
    /// If a file named in the configuration cannot be used.
    fn connect(&self, mqtt: &config::Mqtt, role: Role) -> anyhow::Result<(Self::Client, Self::Link)>;

    /// Runs the engine to its end.
    ///
    /// # Errors
    /// If it panics.
    fn engine(self, thread: EngineThread) -> impl Future<Output = anyhow::Result<()>> + Send + 'static;

    /// Does work that would hold others up somewhere else.
    ///
    /// # Errors
    /// If it panics.
    fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = anyhow::Result<T>> + Send;
}

/// The database, the broker, and threads.
#[derive(Debug, Clone)]
pub(crate) struct Real {
    pub(crate) store: Store,
}

impl World for Real {
    type Store = Store;
    type Client = mqtt::TcpClient;
    type Link = mqtt::TcpLink;

    fn store(&self) -> &Store {
        &self.store
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    fn connect(&self, mqtt: &config::Mqtt, role: Role) -> anyhow::Result<(mqtt::TcpClient, mqtt::TcpLink)> {
        mqtt::TcpLink::open(mqtt, role)
    }

    async fn engine(self, thread: EngineThread) -> anyhow::Result<()> {
        let (done, ended) = oneshot::channel();
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            thread.run();
            // The daemon waits for this unless it is past its deadline.
            let _ = done.send(());
        })?;
        ended.await.context("the engine thread panicked")
    }

    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        training::on_low_priority(work).await
    }
}
