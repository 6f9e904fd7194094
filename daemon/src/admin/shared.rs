//! One answer of the engine for all who ask at the same time.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Share of the engine's time that may go into answers: one part in so many.
const PART: u32 = 10;
/// Longest pause between two answers.
const LONGEST: Duration = Duration::from_secs(1);

/// How long to let the engine alone after something that took so long.
pub(super) fn pause(took: Duration) -> Duration {
    LONGEST.min((PART - 1) * took)
}

/// An answer that is expensive to make.
#[derive(Debug)]
pub(super) struct Shared<T>(Mutex<Option<Made<T>>>);

#[derive(Debug)]
struct Made<T> {
    /// When it was begun.
    begun: Instant,
    /// When it was ready.
    ended: Instant,
    answer: Option<T>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    /// The answer that another question has caused meanwhile, or one made by `make`; never older than the
    /// question.
    pub(super) async fn get(&self, make: impl Future<Output = Option<T>>) -> Option<T> {
        let asked = Instant::now();
        self.find(|made| made.begun >= asked, make).await
    }

    /// An answer that was ready at most so long ago, or one made by `make`.
    pub(super) async fn recent(&self, age: Duration, make: impl Future<Output = Option<T>>) -> Option<T> {
        let asked = Instant::now();
        self.find(|made| made.ended + age >= asked, make).await
    }

    async fn find(
        &self,
        will_do: impl FnOnce(&Made<T>) -> bool,
        make: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let mut made = self.0.lock().await;
        if let Some(made) = &*made {
            if will_do(made) {
                return made.answer.clone();
            }
            sleep_until(made.ended + pause(made.ended - made.begun)).await;
        }
        let begun = Instant::now();
        let answer = make.await;
        *made = Some(Made { begun, ended: Instant::now(), answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::body::Bytes;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    /// The first answer is held up until two hundred more have asked for one.
    #[tokio::test]
    async fn many_questions_share_few_answers_none_older_than_the_question() {
        let shared = Shared::default();
        let (begun, gate) = (AtomicU32::new(0), Notify::new());
        let ask = || async {
            let before = begun.load(Ordering::Relaxed);
            let make = async {
                let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
                if number == 1 {
                    gate.notified().await;
                }
                Some(Bytes::from(number.to_string()))
            };
            let answer = shared.get(make).await.unwrap_or_default();
            let number: u32 = String::from_utf8_lossy(&answer).parse().unwrap_or_default();
            assert!(number > before, "asked after {before} were begun, answered with {number}");
        };
        let later = async {
            while begun.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let asking = join_all((0..200).map(|_| ask()));
            let open = async {
                tokio::task::yield_now().await;
                gate.notify_one();
            };
            tokio::join!(asking, open);
        };
        tokio::join!(ask(), later);
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_recent_enough_will_do() {
        let (shared, made) = (Shared::default(), AtomicU32::new(0));
        let make = || async { Some(made.fetch_add(1, Ordering::Relaxed)) };
        let second = Duration::from_secs(1);
        assert_eq!(shared.recent(second, make()).await, Some(0));
        tokio::time::advance(second / 2).await;
        assert_eq!(shared.recent(second, make()).await, Some(0));
        assert_eq!(shared.get(make()).await, Some(1));
        tokio::time::advance(second * 2).await;
        assert_eq!(shared.recent(second, make()).await, Some(2));
    }
}
