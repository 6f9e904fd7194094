//! The connection for control: requests in, answers and announcements out. Neither readings nor forecasts wait
//! for it, and it waits for neither.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time;
use tracing::{error, info, warn};

use super::backoff::Outages;
use super::wire::{Client, Event, Incoming, Link, Refused};
use crate::config;
use crate::retry::{Reminder, sleep_until};

/// Fixed header, topic length and properties of a PUBLISH at quality of service 0, besides correlation data.
const PUBLISH_OVERHEAD: usize = 16;
/// How long after a subscription was refused, or not answered, it is tried again.
const RESUBSCRIBE: Duration = Duration::from_secs(30);
/// How often messages that are too large are mentioned.
const REMIND_EVERY: Duration = Duration::from_secs(30);
/// How long the end may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What is told of what comes over the connection. Must not wait: the connection is kept alive by whoever calls.
pub(crate) trait Hear: Send {
    /// A new connection stands, over which packets of so many bytes may be sent, and subscriptions are asked for.
    fn connected(&mut self, largest: usize);

    /// The connection is gone.
    fn disconnected(&mut self);

    /// A message has come.
    fn message(&mut self, incoming: Incoming);
}

/// A message to publish, at quality of service 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Post {
    /// Topic.
    pub(crate) topic: String,
    /// Body.
    pub(crate) payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub(crate) retain: bool,
    /// Correlation data of the request that it answers.
    pub(crate) correlation: Option<Vec<u8>>,
}

impl Post {
    /// Bytes that it takes as a packet, at the most.
    pub(crate) fn size(&self) -> usize {
        let correlation = self.correlation.as_ref().map_or(0, |c| c.len() + 3);
        self.topic.len() + self.payload.len() + correlation + PUBLISH_OVERHEAD
    }
}

/// Runs the connection until it is time to stop and what was sent before is published.
///
/// What waits while there is no connection is bounded by the channel. What was handed to a connection that broke
/// is lost: whoever asked asks again, and what is announced is announced anew on every connection.
pub(crate) async fn run_control<C: Client, L: Link>(
    (client, link): (C, L),
    config: config::Mqtt,
    filters: Vec<String>,
    hear: impl Hear,
    posts: mpsc::Receiver<Post>,
    mut stop: watch::Receiver<bool>,
) {
    // The largest packet that may be sent; none while there is no connection.
    let (up, limit) = watch::channel(None);
    let (end, ended) = watch::channel(false);
    let outages = Outages::new("control", &config.url);
    let drive = Drive { client: &client, filters, hear, up, outages, max: config.max_packet_bytes };
    let work = async {
        tokio::join!(drive.run(link, ended), async {
            // Refused means that the polling half has ended.
            let _ = feed(&client, posts, limit, stop.clone()).await;
            end.send_replace(true);
            let _ = client.disconnect().await;
        });
    };
    let mut deadline = stop.clone();
    let deadline = async {
        // Whoever could say stop may be gone.
        let _ = deadline.wait_for(|stop| *stop).await;
        time::sleep(FAREWELL).await;
    };
    tokio::select! {
        biased;
        () = work => {}
        () = deadline => {}
    }
    // Should the connection have ended before its time, that is for the end to come.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Drive<'a, C, H> {
    client: &'a C,
    filters: Vec<String>,
    hear: H,
    up: watch::Sender<Option<usize>>,
    outages: Outages,
    max: usize,
}

impl<C: Client, H: Hear> Drive<'_, C, H> {
    /// Polls the connection and keeps it up.
    async fn run(mut self, mut link: impl Link, mut ended: watch::Receiver<bool>) {
        let mut resubscribe = None;
        loop {
            let event = if self.up.borrow().is_some() {
                let mut next = std::pin::pin!(link.next());
                loop {
                    tokio::select! {
                        biased;
                        event = &mut next => break event,
                        () = sleep_until(resubscribe), if resubscribe.is_some() => {
                            resubscribe = self.subscribe();
                        }
                    }
                }
            } else {
                // Nothing is being written, so nothing is lost if this ends half way.
                tokio::select! {
                    biased;
                    event = link.next() => event,
                    _ = ended.wait_for(|ended| *ended) => return,
                }
            };
            match event {
                Ok(Event::Connected { max_packet }) => {
                    self.outages.connected();
                    resubscribe = self.subscribe();
                    let largest = max_packet.unwrap_or(self.max).min(self.max);
                    self.hear.connected(largest);
                    self.up.send_replace(Some(largest));
                }
                Ok(Event::Publish(incoming)) => self.hear.message(incoming),
                Ok(Event::Subscribed(answers)) => resubscribe = self.subscribed(&answers),
                Ok(Event::Disconnected) => return link.closed().await,
                // Nothing is asked for to be let go of.
                Ok(Event::Unsubscribed | Event::Other) => {}
                Err(failure) => {
                    resubscribe = None;
                    self.up.send_replace(None);
                    self.hear.disconnected();
                    link.forget();
                    let delay = self.outages.failed(&failure);
                    tokio::select! {
                        biased;
                        () = time::sleep(delay) => {}
                        _ = ended.wait_for(|ended| *ended) => return,
                    }
                }
            }
        }
    }

    /// Asks for the subscriptions; when to do so again, should no answer come.
    fn subscribe(&self) -> Option<time::Instant> {
        if self.client.subscribe(&self.filters, 1).is_err() {
            error!("cannot subscribe to requests now, trying again");
        }
        Some(time::Instant::now() + RESUBSCRIBE)
    }

    fn subscribed(&self, answers: &[Result<(), String>]) -> Option<time::Instant> {
        let refused: Vec<_> =
            self.filters.iter().zip(answers).filter_map(|(f, a)| Some((f, a.as_ref().err()?))).collect();
        for (filter, reason) in &refused {
            warn!(
                "the broker refuses the subscription to {filter} ({reason}); let the user of mqtt.username read it, \
                 or switch off what needs it ([mqtt] control, [homeassistant] discovery); trying again in \
                 {RESUBSCRIBE:?}"
            );
        }
        if refused.is_empty() {
            info!("listening to {}", self.filters.join(", "));
        }
        (!refused.is_empty()).then(|| time::Instant::now() + RESUBSCRIBE)
    }
}

/// Hands messages to the connection; what is left when it is time to stop and there is none is dropped.
async fn feed<C: Client>(
    client: &C,
    mut posts: mpsc::Receiver<Post>,
    mut limit: watch::Receiver<Option<usize>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Refused> {
    let (mut reminder, mut unsaid) = (Reminder::default(), 0);
    loop {
        // Whoever hears of messages may answer them, so there is always a sender.
        let post = tokio::select! {
            biased;
            post = posts.recv() => post,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let Some(post) = post else { return Ok(()) };
        let limit = tokio::select! {
            biased;
            limit = limit.wait_for(Option::is_some) => limit.map_err(|_| Refused)?.unwrap_or_default(),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        // Either would end the connection, and the library does not check the first.
        if post.topic.len() > usize::from(u16::MAX) || post.size() > limit {
            if reminder.is_due(REMIND_EVERY) {
                // Whoever asks may have chosen the topic.
                let topic: String = post.topic.chars().take(200).collect();
                let size = post.size();
                warn!(
                    before = unsaid,
                    "a message of {size} bytes on {topic} is dropped: the limit is {limit}"
                );
                unsaid = 0;
            } else {
                unsaid += 1;
            }
            continue;
        }
        match post.correlation {
            Some(_) => client.answer(post.topic, post.payload, post.correlation).await?,
            None => client.publish(post.topic, post.payload, post.retain).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex, PoisonError};

    use tokio::sync::Notify;

    use super::super::wire::Failure;
    use super::*;

    /// A connection that stands until the farewell, and notes what is asked of it.
    #[derive(Clone, Default)]
    struct Standing {
        asked: Arc<Mutex<Vec<String>>>,
        ended: Arc<Notify>,
        connected: bool,
    }

    impl Standing {
        fn note(&self, what: &str) -> Result<(), Refused> {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
            Ok(())
        }
    }

    impl Client for Standing {
        fn ack(&self, _: u16) -> Result<(), Refused> {
            Ok(())
        }

        fn subscribe(&self, filters: &[String], _: u8) -> Result<(), Refused> {
            self.note(&filters.join(" "))
        }

        fn unsubscribe(&self, _: &BTreeSet<String>) -> Result<(), Refused> {
            Ok(())
        }

        fn try_disconnect(&self) -> Result<(), Refused> {
            Ok(())
        }

        async fn publish(&self, topic: String, _: Vec<u8>, _: bool) -> Result<(), Refused> {
            self.note(&topic)
        }

        async fn answer(&self, topic: String, _: Vec<u8>, _: Option<Vec<u8>>) -> Result<(), Refused> {
            self.note(&topic)
        }

        async fn disconnect(&self) -> Result<(), Refused> {
            self.ended.notify_one();
            self.note("farewell")
        }
    }

    impl Link for Standing {
        async fn next(&mut self) -> Result<Event, Failure> {
            if !std::mem::replace(&mut self.connected, true) {
                return Ok(Event::Connected { max_packet: None });
            }
            self.ended.notified().await;
            Ok(Event::Disconnected)
        }

        async fn closed(&mut self) {}
        fn reset(&mut self) {}
        fn forget(&mut self) {}
        fn resume(&mut self, _: &str, _: &[u8]) {}
    }

    /// Answers what it hears.
    struct Answering(#[allow(dead_code, reason = "held, as whoever answers does")] mpsc::Sender<Post>);

    impl Hear for Answering {
        fn connected(&mut self, _: usize) {}
        fn disconnected(&mut self) {}
        fn message(&mut self, _: Incoming) {}
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_farewell_at_once_after_what_was_sent() {
        let (posts, posted) = mpsc::channel(4);
        let (stop, stopped) = watch::channel(false);
        let connection = Standing::default();
        let filters = vec!["requests".to_owned()];
        let pair = (connection.clone(), connection.clone());
        let hear = Answering(posts.clone());
        let post = Post { topic: "answer".to_owned(), payload: Vec::new(), retain: false, correlation: None };
        assert!(posts.send(post).await.is_ok());
        let begin = time::Instant::now();
        tokio::join!(run_control(pair, config::Mqtt::default(), filters, hear, posted, stopped), async {
            // Once it stands.
            time::sleep(Duration::from_millis(1)).await;
            stop.send_replace(true);
        });
        assert_eq!(begin.elapsed(), Duration::from_millis(1));
        let asked = connection.asked.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*asked, ["requests", "answer", "farewell"]);
        drop(posts);
    }
}
