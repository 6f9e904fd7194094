//! Control over MQTT: requests on `vidente/request/…`, each answered where it says.
//!
//! ```text
//! broker ═▶ connection ──bounded──▶ desk ──▶ engine, store
//!    ◀═════════ posts ◀───────────────┘
//! ```
//! The connection is a third one: neither readings nor forecasts wait for it. What comes faster than it is
//! answered is refused, and counted.

mod desk;
mod ear;
mod engine;
mod follow;
mod index;
mod request;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub use engine::{Condition, ControlMessage, Known, Taught};
pub use follow::{Follower, Told};
pub(crate) use index::Index;

use crate::config::Config;
use crate::homeassistant::{self, HomeAssistant, Mirror};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::mqtt::{self, Role};
use crate::store::Store;
use crate::supervise::Tasks;
use crate::topic::REQUEST_PREFIX;
use desk::Desk;
use ear::Ear;

/// Messages that wait to be published.
const POSTS: usize = 64;

/// What control is made of.
pub(crate) struct Control {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) engine: mpsc::WeakSender<Message>,
}

impl Control {
    /// Starts its tasks, if the configuration asks for any.
    ///
    /// # Errors
    /// If a file named in the configuration cannot be used.
    pub(crate) fn start(self, tasks: &mut Tasks, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
        let Control { config, store, metrics, engine } = self;
        let (control, discovery) = (config.mqtt.control, config.homeassistant.discovery);
        if !control && !discovery {
            return Ok(());
        }
        let (posts, posted) = mpsc::channel(POSTS);
        let index = Arc::new(Index::new(engine));
        let mut filters = Vec::new();
        let mut ear = Ear::new(metrics.clone(), posts.clone());
        if control {
            filters.push(format!("{REQUEST_PREFIX}#"));
            let desk = Desk::new(&config, store, metrics, index.clone(), posts.clone());
            let (requests, requested) = mpsc::channel(desk::WAITING);
            ear.requests = Some((requests, desk.clone()));
            tasks.spawn("requests", desk.run(requested, stop.clone()));
        }
        if discovery {
            filters.extend(homeassistant::filters(&config.homeassistant));
            let mirror = Arc::new(Mirror::new(&config));
            ear.homeassistant = Some(mirror.clone());
            let announcer = HomeAssistant::new(&config, index, mirror, posts);
            tasks.spawn("homeassistant", announcer.run(stop.clone()));
        }
        let connection = mqtt::TcpLink::open(&config.mqtt, Role::Control)?;
        let run = mqtt::run_control(connection, config.mqtt.clone(), filters, ear, posted, stop.clone());
        tasks.spawn_plain("control", run);
        Ok(())
    }
}
