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
use crate::reload::Live;
use crate::store::Store;
use crate::supervise::Tasks;
use crate::topic::REQUEST_PREFIX;
use desk::Desk;
use ear::Ear;

/// Messages that wait to be published.
const POSTS: usize = 16;

/// What the control connection subscribes to; nothing if the configuration asks for none.
pub(crate) fn filters(config: &Config) -> Vec<String> {
    let requests = config.mqtt.control.then(|| format!("{REQUEST_PREFIX}#"));
    let discovery = config.homeassistant.discovery.then(|| homeassistant::filters(&config.homeassistant));
    requests.into_iter().chain(discovery.into_iter().flatten()).collect()
}

/// What control is made of.
pub(crate) struct Control {
    /// The configuration in force.
    pub(crate) live: watch::Receiver<Live>,
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
        let Control { live, store, metrics, engine } = self;
        let config = live.borrow().config.clone();
        let (control, discovery) = (config.mqtt.control, config.homeassistant.discovery);
        if !control && !discovery {
            return Ok(());
        }
        let (posts, posted) = mpsc::channel(POSTS);
        let index = Arc::new(Index::new(engine));
        let mut ear = Ear::new(metrics.clone(), posts.clone());
        if control {
            let desk = Desk::new(live.clone(), store, metrics, index.clone(), posts.clone());
            let (requests, requested) = mpsc::channel(desk::WAITING);
            ear.requests = Some((requests, desk.clone()));
            tasks.spawn("requests", desk.run(requested, stop.clone()));
        }
        if discovery {
            let mirror = Arc::new(Mirror::new(live.clone()));
            ear.homeassistant = Some(mirror.clone());
            let announcer = HomeAssistant::new(live, index, mirror, posts);
            tasks.spawn("homeassistant", announcer.run(stop.clone()));
        }
        let connection = mqtt::TcpLink::open(&config.mqtt, Role::Control)?;
        let run =
            mqtt::run_control(connection, config.mqtt.clone(), filters(&config), ear, posted, stop.clone());
        tasks.spawn_plain("control", run);
        Ok(())
    }
}
