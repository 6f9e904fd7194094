//! Where requests are answered.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forecaster::SeriesHandle;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Index;
use super::engine::{ControlMessage, Taught};
use super::request::{List, Question, Refusal, Request, Return};
use crate::catalog;
use crate::encode;
use crate::metrics::Metrics;
use crate::mqtt::Post;
use crate::reload::Live;
use crate::store::Store;
use crate::supervise::until_stopped;
use crate::topic::{self, Outputs, RESPONSE_PREFIX};
use crate::training;

/// Requests that may wait to be answered …
pub(super) const WAITING: usize = 64;
/// … and that are being answered.
const AT_ONCE: usize = 8;
/// Time between two requests at least: a thousand a second, so that the engine has time for readings.
const PACE: Duration = Duration::from_millis(1);
/// Those of them that take long: histories and lists.
const LONG_AT_ONCE: usize = 2;
/// Newest readings asked of the engine at a time.
const PART: usize = 128;
/// How long the engine or the store may take to answer, or to confirm feedback.
const PATIENCE: Duration = Duration::from_secs(10);

/// What answers are made of.
pub(super) struct Desk {
    store: Store,
    metrics: Arc<Metrics>,
    index: Arc<Index>,
    posts: mpsc::Sender<Post>,
    /// The configuration in force.
    live: watch::Receiver<Live>,
    long: Semaphore,
    /// Bytes of the largest packet that the present connection takes.
    largest: AtomicUsize,
    /// When feedback was given last, microseconds since the Unix epoch.
    given_at: Mutex<i64>,
}

/// An answer: a message as it stands, or members.
enum Answer {
    Message(Vec<u8>),
    Members(Map<String, Value>),
}

/// Where an answer goes.
enum Destination {
    To {
        topic: String,
        correlation: Option<Vec<u8>>,
    },
    /// Nowhere was said.
    Nowhere,
    /// What was said may not be published on.
    Forbidden,
}

impl Desk {
    pub(super) fn new(
        live: watch::Receiver<Live>,
        store: Store,
        metrics: Arc<Metrics>,
        index: Arc<Index>,
        posts: mpsc::Sender<Post>,
    ) -> Arc<Desk> {
        let largest = AtomicUsize::new(live.borrow().config.mqtt.max_packet_bytes);
        Arc::new(Desk {
            store,
            metrics,
            index,
            posts,
            live,
            long: Semaphore::new(LONG_AT_ONCE),
            largest,
            given_at: Mutex::new(0),
        })
    }

    /// A new connection takes packets of so many bytes.
    pub(super) fn bound(&self, largest: usize) {
        self.largest.store(largest, Ordering::Relaxed);
    }

    /// Answers requests until it is time to stop; those under way are dropped then.
    pub(super) async fn run(
        self: Arc<Desk>,
        mut requests: mpsc::Receiver<Request>,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut answering = JoinSet::new();
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            while let Some(request) = requests.recv().await {
                while answering.len() >= AT_ONCE {
                    if let Some(Err(error)) = answering.join_next().await {
                        return Err(error.into());
                    }
                }
                pace.tick().await;
                let desk = self.clone();
                answering.spawn(async move { desk.handle(request).await });
            }
            // The connection has ended, which is told elsewhere.
            Ok(())
        };
        let ended = until_stopped(&mut stop, work).await.unwrap_or(Ok(()));
        if ended.is_ok() {
            let _ = stop.wait_for(|stop| *stop).await;
        }
        ended
    }

    async fn handle(&self, request: Request) {
        let (to, question) = request.read();
        let destination = self.destination(&request, &to);
        // Feedback is of use without an answer, too.
        let in_vain = question.as_ref().is_ok_and(|q| !matches!(q, Question::Feedback { .. }));
        let lost = match &destination {
            Destination::Forbidden => Some("forbidden_response_topic"),
            Destination::Nowhere if in_vain => Some("no_response_topic"),
            _ => None,
        };
        if let Some(outcome) = lost {
            tracing::debug!(request = request.kind.label(), outcome, "a request cannot be answered");
            return self.count(&request, outcome);
        }
        let answered = match question {
            Ok(question) => self.answer(question).await,
            Err(refusal) => Err(refusal),
        };
        let Destination::To { topic, correlation } = destination else {
            return self.count(&request, answered.as_ref().map_or_else(Refusal::code, |_| "answered"));
        };
        let post =
            |payload| Post { topic: topic.clone(), payload, retain: false, correlation: correlation.clone() };
        let mut outcome = answered.as_ref().map_or_else(Refusal::code, |_| "answered");
        let mut message = post(word(answered, to.correlation.clone()));
        if message.size() > self.largest.load(Ordering::Relaxed) {
            let what = format!("the answer would have {} bytes; ask for less", message.payload.len());
            let refusal = Refusal::TooLarge(what);
            outcome = refusal.code();
            message = post(word(Err(refusal), to.correlation));
        }
        self.count(&request, outcome);
        // The connection ends when it is time to stop.
        let _ = self.posts.send(message).await;
    }

    fn count(&self, request: &Request, outcome: &str) {
        self.metrics.requests.with_label_values(&[request.kind.label(), outcome]).inc();
    }

    /// The answer to a request that is not even read, where MQTT 5 says where it goes.
    pub(super) fn refuse(&self, request: &Request, refusal: &Refusal) -> Option<Post> {
        self.count(request, refusal.code());
        match self.destination(request, &Return::default()) {
            Destination::To { topic, correlation } => {
                Some(Post { topic, payload: word(Err(refusal.clone()), None), retain: false, correlation })
            }
            _ => None,
        }
    }

    fn destination(&self, request: &Request, to: &Return) -> Destination {
        let (topic, correlation) = match (&request.reply, &to.topic) {
            (Some(reply), _) => (&reply.topic, reply.correlation.clone()),
            (None, Some(topic)) => (topic, None),
            (None, None) => return Destination::Nowhere,
        };
        if self.may_answer_on(topic) {
            Destination::To { topic: topic.clone(), correlation }
        } else {
            Destination::Forbidden
        }
    }

    /// Whether an answer may go there: not where it would be ingested, nor where others take it for something else.
    fn may_answer_on(&self, topic: &str) -> bool {
        let fit = !topic.is_empty()
            && topic.len() <= usize::from(u16::MAX)
            && !topic.starts_with('$')
            && !topic.contains(['+', '#'])
            && !topic.chars().any(topic::unfit);
        let ours = topic.strip_prefix(RESPONSE_PREFIX).is_some_and(|rest| !rest.is_empty());
        let foreign = || {
            let live = self.live.borrow();
            let ingested = live.streams().any(|(_, stream)| stream.topic.matches(topic).is_some());
            !ingested && Outputs::of(&live.config).is_free(topic)
        };
        fit && (ours || foreign())
    }

    async fn answer(&self, question: Question) -> Result<Answer, Refusal> {
        match question {
            Question::Forecast { series } => {
                let handle = self.find(&series).await?;
                let message = soon(self.index.ask(|reply| ControlMessage::Forecast(handle, reply))).await?;
                message.map(Answer::Message).ok_or(Refusal::NoReadings)
            }
            Question::History { series, limit, from, to } => self.history(series, limit, from, to).await,
            Question::Series(list) => self.list(list).await,
            Question::Feedback { series, time, anomaly } => self.feedback(series, time, anomaly).await,
        }
    }

    async fn find(&self, key: &str) -> Result<SeriesHandle, Refusal> {
        let mut found = self.index.find(key);
        if found.is_none() {
            // It may be new.
            soon(self.index.refresh()).await?;
            found = self.index.find(key);
        }
        found
            .filter(|series| self.is_active(*series))
            .ok_or_else(|| Refusal::UnknownSeries(key.chars().take(200).collect()))
    }

    /// Whether no reload has taken its stream out.
    fn is_active(&self, series: SeriesHandle) -> bool {
        let Some(known) = self.index.get(series) else { return false };
        self.live.borrow().streams().any(|(_, stream)| *stream.name == *known.stream)
    }

    async fn history(&self, series: String, limit: usize, from: i64, to: i64) -> Result<Answer, Refusal> {
        let _reading = self.long.try_acquire().map_err(|_| Refusal::Busy)?;
        match timeout(PATIENCE, self.store.series_span(&series, from..=to, limit)).await {
            Ok(Ok(Some(page))) => Ok(Answer::Message(serde_json::to_vec(&page).unwrap_or_default())),
            Ok(Ok(None)) => Err(Refusal::UnknownSeries(series.chars().take(200).collect())),
            Ok(Err(error)) => {
                tracing::warn!("the store did not answer a request: {error}");
                Err(Refusal::StoreAway)
            }
            Err(_) => Err(Refusal::StoreAway),
        }
    }

    async fn list(&self, list: List) -> Result<Answer, Refusal> {
        let _looking = self.long.try_acquire().map_err(|_| Refusal::Busy)?;
        soon(self.index.refresh()).await?;
        let streams: HashSet<String> =
            self.live.borrow().streams().map(|(_, stream)| stream.name.clone()).collect();
        let (index, offset) = (self.index.clone(), list.offset);
        // Through a hundred thousand keys: not on a thread that readings come over.
        let looked = spawn_blocking(move || index.list(&list, |stream| streams.contains(stream))).await;
        let (total, page) = looked.map_err(|_| Refusal::Stopping)?;
        let mut series = Vec::with_capacity(page.len());
        for part in page.chunks(PART) {
            let handles = part.iter().map(|(handle, _)| *handle).collect();
            let last = soon(self.index.ask(|reply| ControlMessage::Last(handles, reply))).await?;
            for ((_, known), last) in part.iter().zip(last) {
                series.push(json!({
                    "key": &*known.key, "stream": &*known.stream, "labels": catalog::map(&known.labels), "last": last,
                }));
            }
        }
        Ok(members(json!({ "total": total, "offset": offset, "series": series })))
    }

    async fn feedback(&self, key: String, time: Option<i64>, anomaly: bool) -> Result<Answer, Refusal> {
        let series = self.find(&key).await?;
        // One after the other: the engine is to learn in the order in which a restart learns again.
        let mut last = self.given_at.lock().await;
        let given_at = training::now().max(last.saturating_add(1));
        *last = given_at;
        let teach = self.index.ask(|reply| ControlMessage::Teach { series, time, anomaly, given_at, reply });
        let taught = timeout(PATIENCE, teach).await.map_err(|_| Refusal::NotStored)?;
        drop(last);
        let (tuned, stored) = match taught.ok_or(Refusal::Stopping)? {
            Taught::Tuned(tuned, stored) => (tuned, stored),
            Taught::NothingRemembered => return Err(Refusal::NothingRemembered),
            Taught::StoreAway => return Err(Refusal::StoreAway),
        };
        // Only then would it outlive a crash.
        match timeout(PATIENCE, stored).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refusal::StoreRefused),
            Err(_) => return Err(Refusal::NotStored),
        }
        tracing::info!(series = key, anomaly, evidence = tuned.moment.evidence, "feedback taken");
        Ok(members(json!({
            "series": key,
            "anomaly": anomaly,
            "time": encode::text(tuned.moment.from),
            "evidence": tuned.moment.evidence,
            "bar": { "before": tuned.before, "after": tuned.after },
        })))
    }
}

/// What the engine answers, if it does so in time.
async fn soon<T>(answer: impl Future<Output = Option<T>>) -> Result<T, Refusal> {
    timeout(PATIENCE, answer).await.map_err(|_| Refusal::Busy)?.ok_or(Refusal::Stopping)
}

fn members(value: Value) -> Answer {
    match value {
        Value::Object(members) => Answer::Members(members),
        _ => Answer::Members(Map::new()),
    }
}

/// An answer as it is published, with the correlation that the request's body holds.
fn word(answered: Result<Answer, Refusal>, correlation: Option<Value>) -> Vec<u8> {
    let mut members = match answered {
        Ok(Answer::Message(mut message)) => {
            // It may be long: it is not taken apart for one member more.
            if let Some(correlation) = correlation
                && message.pop_if(|last| *last == b'}').is_some()
            {
                message.extend(format!(",\"correlation\":{correlation}}}").into_bytes());
            }
            return message;
        }
        Ok(Answer::Members(members)) => members,
        Err(refusal) => refusal.answer(),
    };
    if let Some(correlation) = correlation {
        members.insert("correlation".to_owned(), correlation);
    }
    Value::Object(members).to_string().into_bytes()
}
