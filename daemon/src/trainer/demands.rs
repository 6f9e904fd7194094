//! Training runs that somebody asks for: over HTTP, or by SIGUSR1.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One mark a stream: asking twice before the run begins is asking once.
#[derive(Debug)]
pub struct Demands {
    streams: Vec<(String, AtomicBool)>,
    asked: Notify,
}

impl Demands {
    /// Nothing is asked for.
    pub fn new(streams: impl Iterator<Item = String>) -> Demands {
        Demands {
            streams: streams.map(|name| (name, AtomicBool::new(false))).collect(),
            asked: Notify::new(),
        }
    }

    /// Asks for a run of a stream, or of all; names of those asked for, none if there is no such stream.
    pub fn ask(&self, stream: Option<&str>) -> Vec<&str> {
        let meant = |name: &str| stream.is_none_or(|stream| stream == name);
        let names: Vec<&str> = self
            .streams
            .iter()
            .filter(|(name, _)| meant(name))
            .map(|(name, mark)| {
                mark.store(true, Ordering::Relaxed);
                name.as_str()
            })
            .collect();
        self.asked.notify_one();
        names
    }

    /// Whether a run of a stream was asked for since this was last called.
    pub(crate) fn take(&self, position: usize) -> bool {
        self.streams.get(position).is_some_and(|(_, mark)| mark.swap(false, Ordering::Relaxed))
    }

    /// Waits until something is asked for.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }
}
