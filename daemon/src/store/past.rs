//! What is read back at a start and when models change: from the database, or from a simulated one.

use super::{ModelRow, SeriesRow, Store, StoreError, StoredFeedback, StoredReading, StoredState};

/// See the methods of [`Store`] of the same names. All fail if the database is away.
pub(crate) trait Past: Send + Sync + 'static {
    fn migrate(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn series(&self) -> impl Future<Output = Result<Vec<SeriesRow>, StoreError>> + Send;
    fn states(&self, stream: &str) -> impl Future<Output = Result<Vec<StoredState>, StoreError>> + Send;
    fn delete_states(&self, series: &[i64]) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn readings_after_states(
        &self,
        stream: &str,
        each: impl FnMut(StoredReading) + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn open_silences(&self, stream: &str)
    -> impl Future<Output = Result<Vec<(i64, i64)>, StoreError>> + Send;
    fn feedback_after_states(
        &self,
        stream: &str,
    ) -> impl Future<Output = Result<Vec<StoredFeedback>, StoreError>> + Send;
    fn champion(&self, stream: &str) -> impl Future<Output = Result<Option<ModelRow>, StoreError>> + Send;
    fn model(&self, id: i64) -> impl Future<Output = Result<Option<ModelRow>, StoreError>> + Send;
    fn newest(&self, stream: &str) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send;
    fn history(
        &self,
        stream: &str,
        since: i64,
        each: impl FnMut(StoredReading) + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Past for Store {
    async fn migrate(&self) -> Result<(), StoreError> {
        Store::migrate(self).await
    }

    async fn series(&self) -> Result<Vec<SeriesRow>, StoreError> {
        Store::series(self).await
    }

    async fn states(&self, stream: &str) -> Result<Vec<StoredState>, StoreError> {
        Store::states(self, stream).await
    }

    async fn delete_states(&self, series: &[i64]) -> Result<(), StoreError> {
        Store::delete_states(self, series).await
    }

    async fn readings_after_states(
        &self,
        stream: &str,
        each: impl FnMut(StoredReading) + Send,
    ) -> Result<(), StoreError> {
        Store::readings_after_states(self, stream, each).await
    }

    async fn open_silences(&self, stream: &str) -> Result<Vec<(i64, i64)>, StoreError> {
        Store::open_silences(self, stream).await
    }

    async fn feedback_after_states(&self, stream: &str) -> Result<Vec<StoredFeedback>, StoreError> {
        Store::feedback_after_states(self, stream).await
    }

    async fn champion(&self, stream: &str) -> Result<Option<ModelRow>, StoreError> {
        Store::champion(self, stream).await
    }

    async fn model(&self, id: i64) -> Result<Option<ModelRow>, StoreError> {
        Store::model(self, id).await
    }

    async fn newest(&self, stream: &str) -> Result<Option<i64>, StoreError> {
        Store::newest(self, stream).await
    }

    async fn history(
        &self,
        stream: &str,
        since: i64,
        each: impl FnMut(StoredReading) + Send,
    ) -> Result<(), StoreError> {
        Store::history(self, stream, since, each).await
    }
}
