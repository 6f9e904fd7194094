//! Times as both databases keep them, exact to the microsecond and without conversion in SQL.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};

/// Microseconds since the Unix epoch: `timestamptz` in Postgres, `INTEGER` in SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Micros(pub(super) i64);

/// 2000-01-01T00:00:00Z, from which Postgres counts.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// What Postgres accepts, in its own count: from 4714-11-24 BC up to, not including, 294277-01-01.
const POSTGRES_RANGE: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

impl Micros {
    /// A bound to compare with, moved to what Postgres can hold.
    pub(super) fn bound(time: i64) -> Micros {
        let least = POSTGRES_RANGE.start + POSTGRES_EPOCH;
        let most = (POSTGRES_RANGE.end - 1).saturating_add(POSTGRES_EPOCH);
        Micros(time.clamp(least, most))
    }
}

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let since_2000 = self
            .0
            .checked_sub(POSTGRES_EPOCH)
            .filter(|t| POSTGRES_RANGE.contains(t))
            .ok_or("a time beyond what Postgres holds")?;
        <i64 as Encode<Postgres>>::encode(since_2000, buf)
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let since_2000 = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Micros(since_2000.saturating_add(POSTGRES_EPOCH)))
    }
}

impl Type<Sqlite> for Micros {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(ty)
    }
}

impl Encode<'_, Sqlite> for Micros {
    fn encode_by_ref(&self, buf: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Sqlite>>::encode(self.0, buf)
    }
}

impl<'r> Decode<'r, Sqlite> for Micros {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        <i64 as Decode<Sqlite>>::decode(value).map(Micros)
    }
}
