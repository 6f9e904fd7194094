//! Named tasks: one that panics or ends before its time stops the process, and one that does not
//! stop in time is named.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

/// Tasks that belong together.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: Vec<(Id, &'static str)>,
}

impl Tasks {
    /// Starts a task.
    pub fn spawn<E: Into<anyhow::Error>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let handle = self.running.spawn(async move { task.await.map_err(Into::into) });
        self.names.push((handle.id(), name));
    }

    /// Starts a task that cannot fail.
    pub fn spawn_plain(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, async move {
            task.await;
            anyhow::Ok(())
        });
    }

    /// Waits until it is time to stop.
    ///
    /// # Errors
    /// If a task ends before that, with its name and why.
    pub async fn until_stopped(&mut self, stop: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
        let ended = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            Some(ended) = self.running.join_next_with_id() => ended,
        };
        let (name, result) = self.ended(ended);
        result.with_context(|| format!("{name} broke down"))?;
        // The end may come so soon after the order to stop that this hears of it first.
        anyhow::ensure!(*stop.borrow(), "{name} ended before its time");
        Ok(())
    }

    /// Waits for all tasks to end.
    ///
    /// # Errors
    /// If one failed, or some have not ended within the limit.
    pub async fn finish(mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut failed = None;
        loop {
            match tokio::time::timeout_at(deadline, self.running.join_next_with_id()).await {
                Ok(None) => return failed.map_or(Ok(()), Err),
                Ok(Some(ended)) => {
                    let (name, result) = self.ended(ended);
                    match result {
                        Ok(()) => tracing::debug!("{name} stopped"),
                        Err(error) => failed = Some(error.context(format!("{name} broke down"))),
                    }
                }
                Err(_) => {
                    let stragglers: Vec<_> = self.names.iter().map(|(_, name)| *name).collect();
                    anyhow::bail!("not stopped within {limit:?}: {}", stragglers.join(", "))
                }
            }
        }
    }

    fn ended(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
    ) -> (&'static str, anyhow::Result<()>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let at = self.names.iter().position(|(of, _)| *of == id);
        (at.map_or("a task", |at| self.names.swap_remove(at).1), result)
    }
}

/// Runs work to its end, unless it is time to stop.
pub(crate) async fn until_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        result = work => Some(result),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_early_end_and_a_panic_are_named() {
        let (_keep, mut stop) = watch::channel(false);
        let mut tasks = Tasks::default();
        tasks.spawn_plain("early", async {});
        let error = tasks.until_stopped(&mut stop).await.unwrap_err();
        assert_eq!(error.to_string(), "early ended before its time");
        tasks.spawn("broken", async { anyhow::bail!("no disk") });
        let error = tasks.until_stopped(&mut stop).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "broken broke down: no disk");
        tasks.spawn_plain("panicky", async { assert!(std::hint::black_box(false)) });
        let error = tasks.until_stopped(&mut stop).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("panicky broke down"));
    }

    #[tokio::test]
    async fn stragglers_are_named() {
        let mut tasks = Tasks::default();
        tasks.spawn_plain("quick", async {});
        tasks.spawn_plain("slow", std::future::pending());
        let error = tasks.finish(Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().ends_with(": slow"), "{error}");
    }
}
