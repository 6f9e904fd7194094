//! What comes over the control connection, on to whom it concerns. Waits for nobody.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::desk::Desk;
use super::request::{Refusal, Request};
use crate::homeassistant::Mirror;
use crate::metrics::Metrics;
use crate::mqtt::{Hear, Incoming, Post};
use crate::topic::REQUEST_PREFIX;

/// Bytes of the largest request.
const LARGEST: usize = 64 << 10;

pub(super) struct Ear {
    metrics: Arc<Metrics>,
    posts: mpsc::Sender<Post>,
    /// Where requests go, and who words a refusal.
    pub(super) requests: Option<(mpsc::Sender<Request>, Arc<Desk>)>,
    pub(super) homeassistant: Option<Arc<Mirror>>,
}

impl Ear {
    pub(super) fn new(metrics: Arc<Metrics>, posts: mpsc::Sender<Post>) -> Ear {
        Ear { metrics, posts, requests: None, homeassistant: None }
    }

    fn request(&self, kind: &str, incoming: Incoming) {
        let Some((requests, desk)) = &self.requests else { return };
        let mut request = Request::new(kind, incoming.payload, incoming.reply);
        let refusal = if incoming.retained {
            // A copy that would come again with every connection.
            self.metrics.requests.with_label_values(&[request.kind.label(), "retained"]).inc();
            return;
        } else if request.body.len() > LARGEST {
            request.body = Vec::new();
            Refusal::TooLarge(format!("a request may have {LARGEST} bytes"))
        } else {
            match requests.try_send(request) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(back)) => {
                    request = back;
                    Refusal::Busy
                }
                // It is time to stop.
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        };
        // Read no further than MQTT says where the answer goes: there are too many, or it is too long.
        if let Some(post) = desk.refuse(&request, &refusal) {
            let _ = self.posts.try_send(post);
        }
    }
}

impl Hear for Ear {
    fn connected(&mut self, largest: usize) {
        if let Some((_, desk)) = &self.requests {
            desk.bound(largest);
        }
        if let Some(mirror) = &self.homeassistant {
            mirror.connected();
        }
    }

    fn disconnected(&mut self) {
        if let Some(mirror) = &self.homeassistant {
            mirror.disconnected();
        }
    }

    fn message(&mut self, incoming: Incoming) {
        if let Some(kind) = incoming.topic.strip_prefix(REQUEST_PREFIX) {
            let kind = kind.to_owned();
            return self.request(&kind, incoming);
        }
        if let Some(mirror) = &self.homeassistant {
            mirror.message(&incoming);
        }
    }
}
