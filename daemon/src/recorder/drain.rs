//! At the start: what the process before left in the spool goes to the store, before anything is
//! restored from there.

use std::sync::Arc;

use super::Rows;
use super::shelf::blocking;
use super::writer::{Unwritten, Writer};
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::store::{SeriesIds, StoreError, Trouble};

/// Writes all that is in the spool to the store.
///
/// # Errors
/// If the store is away, or the spool cannot be read; what was written is out of the spool.
pub async fn drain<R: Rows + Clone>(
    store: &R,
    spool: &mut Spool,
    metrics: &Arc<Metrics>,
) -> Result<(), StoreError> {
    let readings = spool.readings();
    if spool.is_empty() {
        return Ok(());
    }
    tracing::info!(readings, "the spool is written to the store");
    let unreadable =
        |error| StoreError::Unavailable(Trouble::Other, format!("the spool cannot be read: {error}"));
    while let Some((entry, end)) = blocking(|| spool.read()).map_err(unreadable)? {
        let (known, batch) = entry.into_batch();
        // Handles mean something only beside what was spooled with them.
        let mut ids = SeriesIds::default();
        known.into_iter().for_each(|(handle, id)| ids.insert(handle, id));
        let mut writer = Writer::new(store.clone(), metrics.clone(), ids, None);
        let mut unwritten = Unwritten::new(Arc::new(batch));
        let written = writer.write(&mut unwritten).await;
        // Not among those stored: the process before has received them.
        metrics.spool_recovered.inc_by(unwritten.stored);
        written?;
        blocking(|| spool.release(end));
        metrics.spool_readings.set(i64::try_from(spool.readings()).unwrap_or(i64::MAX));
        metrics.spool_bytes.set(i64::try_from(spool.bytes()).unwrap_or(i64::MAX));
    }
    tracing::info!("the spool is empty");
    Ok(())
}
