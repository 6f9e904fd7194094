//! Server-sent events: a view of the overview as it changes, or one series as it is published.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query as Parameters, State};
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::View;
use super::serve::Lasting;
use super::{Desk, Pages, error};
use crate::feed::Mailbox;
use crate::message::Query;

/// Clients at a time, a quarter of the connections.
pub(super) const CLIENTS: usize = 32;
/// Least time between two updates of one series, and of the anomalies of all.
const SERIES_EVERY: Duration = Duration::from_millis(250);
/// Time between two looks at the overview.
const OVERVIEW_EVERY: Duration = Duration::from_secs(1);
/// After so long without news a comment shows that the connection holds.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const WRONG: &str = "ask for series=KEY alone, or for what /api/v1/overview takes";

/// A single series. What is not that is a [`View`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    series: String,
}

pub(super) async fn events<P: Pages>(State(desk): State<Arc<Desk<P>>>, uri: Uri) -> Response {
    let one = Parameters::<One>::try_from_uri(&uri).ok().map(|Parameters(one)| one.series);
    let view = match (&one, Parameters::<View>::try_from_uri(&uri)) {
        (Some(_), _) => View::default(),
        (None, Ok(Parameters(view))) if view.fits() => view,
        (None, _) => return error(StatusCode::BAD_REQUEST, WRONG),
    };
    let Ok(place) = desk.event_places.clone().try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many listen to events; close another page");
    };
    let mailbox = Arc::new(Mailbox::default());
    let (key, of_series) = (one.clone(), mailbox.clone());
    match desk.admin.ask(|reply| Query::Listen { key, mailbox: of_series, reply }).await {
        None => return error(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer"),
        Some(false) => return error(StatusCode::NOT_FOUND, "no such series"),
        Some(true) => {}
    }
    let feed = Feed { mailbox, ready: VecDeque::new(), next: Instant::now(), _place: place };
    let mut response = match one {
        Some(_) => Sse::new(feed.series()).into_response(),
        None => Sse::new(feed.overview(desk, view)).into_response(),
    };
    // It goes on for longer than others may.
    response.extensions_mut().insert(Lasting);
    response
}

/// What one client is told.
struct Feed {
    mailbox: Arc<Mailbox>,
    /// Events to be sent next.
    ready: VecDeque<Event>,
    /// When the next ones may be made.
    next: Instant,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// Each forecast and anomaly as it was published; of forecasts that come fast only the newest.
    fn series(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, async |mut feed| {
            while feed.ready.is_empty() {
                tokio::select! {
                    () = feed.mailbox.news() => {
                        sleep_until(feed.next).await;
                        feed.collect();
                        feed.next = Instant::now() + SERIES_EVERY;
                    }
                    () = sleep(KEEP_ALIVE) => feed.ready.push_back(Event::default().comment("")),
                }
            }
            feed.give()
        })
    }

    /// The view whenever it has changed, and each anomaly that begins or ends.
    fn overview<P: Pages>(
        self,
        desk: Arc<Desk<P>>,
        view: View,
    ) -> impl Stream<Item = Result<Event, Infallible>> {
        let (shown, said) = (String::new(), Instant::now());
        unfold((self, desk, view, shown, said), async |(mut feed, desk, view, mut shown, mut said)| {
            while feed.ready.is_empty() {
                sleep_until(feed.next).await;
                // The first is shown at once.
                let age = if shown.is_empty() { 2 * OVERVIEW_EVERY } else { OVERVIEW_EVERY };
                feed.collect();
                if let Some(board) = desk.board(age).await
                    && let Ok(text) = serde_json::to_string(&board.view(&view))
                    && text != shown
                {
                    feed.ready.push_back(Event::default().event("overview").data(&text));
                    shown = text;
                }
                if feed.ready.is_empty() && said.elapsed() >= KEEP_ALIVE {
                    feed.ready.push_back(Event::default().comment(""));
                }
                feed.next = Instant::now() + OVERVIEW_EVERY;
            }
            said = Instant::now();
            feed.give().map(|(event, feed)| (event, (feed, desk, view, shown, said)))
        })
    }

    /// Makes events of what the mailbox holds.
    fn collect(&mut self) {
        let held = self.mailbox.take();
        let named = |name: &str, message: Vec<u8>| {
            Some(Event::default().event(name).data(String::from_utf8(message).ok()?))
        };
        self.ready.extend(held.anomalies.into_iter().filter_map(|message| named("anomaly", message)));
        self.ready.extend(held.forecast.and_then(|message| named("forecast", message)));
    }

    fn give(mut self) -> Option<(Result<Event, Infallible>, Feed)> {
        let event = self.ready.pop_front()?;
        Some((Ok(event), self))
    }
}
