//! Training runs that somebody asks for: over HTTP, or by SIGUSR1.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One mark a stream: asking twice before the run begins is asking once.
#[derive(Debug)]
pub struct Demands {
    streams: Mutex<Vec<Mark>>,
    asked: Notify,
}

#[derive(Debug)]
struct Mark {
    stream: String,
    active: bool,
    asked: bool,
}

impl Demands {
    /// Nothing is asked for.
    pub fn new(streams: impl Iterator<Item = String>) -> Demands {
        let mark = |stream| Mark { stream, active: true, asked: false };
        Demands { streams: Mutex::new(streams.map(mark).collect()), asked: Notify::new() }
    }

    /// Takes up the streams of another configuration, by position, and whether they are active.
    pub(crate) fn set_streams<'a>(&self, streams: impl Iterator<Item = (&'a str, bool)>) {
        let mut marks = self.lock();
        for (position, (stream, active)) in streams.enumerate() {
            match marks.get_mut(position) {
                Some(mark) => {
                    mark.active = active;
                    mark.asked &= active;
                }
                None => marks.push(Mark { stream: stream.to_owned(), active, asked: false }),
            }
        }
    }

    /// Asks for a run of a stream, or of all; names of those asked for, none if there is no such stream.
    pub fn ask(&self, stream: Option<&str>) -> Vec<String> {
        let meant = |mark: &&mut Mark| mark.active && stream.is_none_or(|stream| stream == mark.stream);
        let mark = |mark: &mut Mark| {
            mark.asked = true;
            mark.stream.clone()
        };
        let names = self.lock().iter_mut().filter(meant).map(mark).collect();
        self.asked.notify_one();
        names
    }

    /// Whether a run of a stream was asked for since this was last called.
    pub(crate) fn take(&self, position: usize) -> bool {
        self.lock().get_mut(position).is_some_and(|mark| std::mem::take(&mut mark.asked))
    }

    /// Waits until something is asked for.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mark>> {
        // No code that holds the lock leaves the marks half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
