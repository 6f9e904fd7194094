//! Which series there are, known beside the engine so that looking for some takes none of its time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forecaster::SeriesHandle;
use tokio::sync::{mpsc, oneshot};

use super::engine::{ControlMessage, Known};
use super::request::List;
use crate::message::Message;

/// Series asked for at a time.
pub(crate) const PART: usize = 512;
/// The way to the engine, and the series that it has told of. Series come and never go.
#[derive(Debug)]
pub(crate) struct Index {
    engine: mpsc::WeakSender<Message>,
    series: Mutex<Series>,
    /// Held by whoever asks for more.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Series {
    by_handle: Vec<Known>,
    by_key: BTreeMap<Arc<str>, SeriesHandle>,
}

impl Index {
    pub(super) fn new(engine: mpsc::WeakSender<Message>) -> Index {
        Index { engine, series: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Series> {
        // No code that holds the lock leaves it half changed.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the engine, however long it takes to answer; none if it has ended.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> ControlMessage,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.tell(question(answer)).await?;
        answered.await.ok()
    }

    /// Tells the engine something; none if it has ended.
    pub(crate) async fn tell(&self, message: ControlMessage) -> Option<()> {
        self.engine.upgrade()?.send(Message::Control(message)).await.ok()
    }

    /// Learns of the series that are new; how many there are. None if the engine has ended.
    pub(crate) async fn refresh(&self) -> Option<usize> {
        let _alone = self.asking.lock().await;
        loop {
            let from = self.lock().by_handle.len();
            let known = self.ask(|reply| ControlMessage::Known(from as SeriesHandle, PART, reply)).await?;
            let more = known.len() == PART;
            let mut series = self.lock();
            for (handle, known) in (from as SeriesHandle..).zip(known) {
                series.by_key.insert(known.key.clone(), handle);
                series.by_handle.push(known);
            }
            if !more {
                return Some(series.by_handle.len());
            }
        }
    }

    /// A series.
    pub(crate) fn get(&self, handle: SeriesHandle) -> Option<Known> {
        self.lock().by_handle.get(handle as usize).cloned()
    }

    /// The series of a key, as of the last [`Index::refresh`].
    pub(super) fn find(&self, key: &str) -> Option<SeriesHandle> {
        self.lock().by_key.get(key).copied()
    }

    /// How many series there are of a kind, of streams that are wanted, and some of them, ordered by key.
    pub(super) fn list(
        &self,
        list: &List,
        wanted: impl Fn(&str) -> bool,
    ) -> (usize, Vec<(SeriesHandle, Known)>) {
        let series = self.lock();
        let prefix = list.stream.as_ref().map(|stream| format!("{stream}/"));
        let from = prefix.as_deref().unwrap_or_default();
        let of_stream = series
            .by_key
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_str())));
        let search = list.search.as_deref().unwrap_or_default().to_lowercase();
        let found = of_stream.filter(|(key, _)| search.is_empty() || key.to_lowercase().contains(&search));
        let known = found.filter_map(|(_, &handle)| Some((handle, series.by_handle.get(handle as usize)?)));
        let (mut total, mut page) = (0, Vec::new());
        for (handle, known) in known.filter(|(_, known)| wanted(&known.stream)) {
            if total >= list.offset && page.len() < list.limit {
                page.push((handle, known.clone()));
            }
            total += 1;
        }
        (total, page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_listed_by_stream_and_search_in_pages() {
        let index = Index::new(mpsc::channel(1).0.downgrade());
        for key in ["b/Hall/x", "a/1/x", "gone/1/x", "a/2/x", "ab/3/x", "a/3/x"] {
            let mut series = index.lock();
            let handle = series.by_handle.len() as SeriesHandle;
            series.by_key.insert(key.into(), handle);
            let stream = key.split('/').next().unwrap_or_default().into();
            series.by_handle.push(Known { key: key.into(), stream, labels: [].into() });
        }
        let list = |stream: Option<&str>, search: Option<&str>, offset, limit| {
            let (stream, search) = (stream.map(str::to_owned), search.map(str::to_owned));
            let (total, page) =
                index.list(&List { stream, search, offset, limit }, |stream| stream != "gone");
            (total, page.iter().map(|(_, known)| known.key.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(list(None, None, 0, 10), (5, "a/1/x a/2/x a/3/x ab/3/x b/Hall/x".to_owned()));
        assert_eq!(list(Some("a"), None, 1, 1), (3, "a/2/x".to_owned()));
        assert_eq!(list(None, Some("hall"), 0, 10), (1, "b/Hall/x".to_owned()));
        assert_eq!(list(Some("a"), Some("/3/"), 0, 0), (1, String::new()));
        for none in ["none", "gone"] {
            assert_eq!(list(Some(none), None, 0, 10), (0, String::new()));
        }
    }
}
