//! The one error of the store, and which errors are about the data rather than the database.

use std::io::ErrorKind;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;
use thiserror::Error;

use crate::tls::Distrust;

/// Postgres' SQLSTATE for want of memory, the shared one of locks included: hypertables take some for each chunk.
const OUT_OF_MEMORY: &str = "53200";

/// What went wrong. The text never holds a password: URLs are left out of it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// `[store]` cannot be used as it is; trying again does not help.
    #[error("{0}")]
    Config(String),
    /// The database takes nothing at present: the same write may succeed later.
    #[error("{1}")]
    Unavailable(Trouble, String),
    /// The database has not so much of something at once, for instance of locks: a part of the write may succeed.
    #[error("{0}")]
    TooMuch(String),
    /// The database works, and these rows cannot be written: the same write never succeeds.
    #[error("{0}")]
    Refused(String),
}

/// What is the matter with a database that takes nothing. The set is closed: it is a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The login or its rights do not suffice.
    Denied,
    /// It can only be read, for instance a standby.
    ReadOnly,
    /// The disk is full.
    Full,
    /// Locks, or too many connections.
    Busy,
    /// Tables are not as this version needs them.
    Schema,
    /// It takes writes, but slowly.
    Slow,
    /// Anything else.
    Other,
}

impl Trouble {
    /// All of them, in the order of the enum.
    pub const ALL: [Trouble; 9] = [
        Trouble::Unreachable,
        Trouble::Timeout,
        Trouble::Denied,
        Trouble::ReadOnly,
        Trouble::Full,
        Trouble::Busy,
        Trouble::Schema,
        Trouble::Slow,
        Trouble::Other,
    ];

    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Timeout => "timeout",
            Trouble::Denied => "denied",
            Trouble::ReadOnly => "read_only",
            Trouble::Full => "full",
            Trouble::Busy => "busy",
            Trouble::Schema => "schema",
            Trouble::Slow => "slow",
            Trouble::Other => "other",
        }
    }
}

impl StoreError {
    /// Whether the rows are to blame, so that the same write would fail for ever.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, StoreError::Refused(_))
    }

    /// What is the matter with the database.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            StoreError::Unavailable(trouble, _) => *trouble,
            StoreError::TooMuch(_) => Trouble::Busy,
            StoreError::Config(_) | StoreError::Refused(_) => Trouble::Other,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = said(&error);
        if matches!(&error, sqlx::Error::Database(e) if e.code().as_deref() == Some(OUT_OF_MEMORY)) {
            return StoreError::TooMuch(text);
        }
        let trouble = match &error {
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => None,
            sqlx::Error::Database(e) => {
                let code = e.code().unwrap_or_default();
                if e.try_downcast_ref::<PgDatabaseError>().is_some() {
                    postgres(&code)
                } else {
                    sqlite(&code)
                }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => {
                Some(Trouble::Unreachable)
            }
            _ => Some(Trouble::Other),
        };
        match trouble {
            None => StoreError::Refused(format!("the database refuses the data: {text}")),
            Some(trouble) => StoreError::Unavailable(trouble, text + &advice(&error)),
        }
    }
}

/// What a database says in its own words; the library adds a line of the server's source to them.
pub(super) fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(e) => format!("the database says: {}", e.message()),
        other => other.to_string(),
    }
}

/// What to change where the database and Vidente do not come together, as the end of a text.
pub(super) fn advice(error: &sqlx::Error) -> String {
    let advice = match error {
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default();
            match e.try_downcast_ref::<PgDatabaseError>() {
                Some(e) => postgres_advice(&code, e.routine()),
                None => sqlite_advice(&code),
            }
        }
        sqlx::Error::Tls(e) if Distrust::of(&**e).is_none() => {
            Some("let the server have TLS (ssl = on), or remove ca_file, cert_file and sslmode")
        }
        sqlx::Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => {
            Some("check host and port in url, and that the server runs there")
        }
        _ => None,
    };
    let advice =
        advice.map(str::to_owned).or_else(|| Distrust::of(error).map(|distrust| distrust.to_string()));
    advice.map(|advice| format!("; [store] {advice}")).unwrap_or_default()
}

/// By SQLSTATE, and where one is for several things, by the function of the server that said it: words are
/// in the server's language.
fn postgres_advice(code: &str, routine: Option<&str>) -> Option<&'static str> {
    Some(match (code, routine) {
        ("28000", Some("InitializeSessionUserId")) => {
            "make this role (sudo -u postgres createuser NAME), or name another in url"
        }
        ("28000", Some("ClientAuthentication")) => {
            "let the server's pg_hba.conf have a line for this user, database and address, and reload the server; \
             set cert_file and key_file if it asks for a certificate"
        }
        ("28000" | "28P01", _) => "check the user in url, and its password_file or cert_file",
        ("3D000", _) => "make this database (sudo -u postgres createdb -O ROLE NAME), or name another in url",
        // Insufficient privilege.
        ("42501", _) => {
            "let a role that owns the tables run `vidente migrate`, and give this one its rights \
             by deploy/postgres/roles.sql"
        }
        _ => return None,
    })
}

/// By SQLite's result code.
fn sqlite_advice(code: &str) -> Option<&'static str> {
    Some(match code.parse::<i32>().unwrap_or_default() & 0xff {
        // SQLITE_READONLY, SQLITE_CANTOPEN.
        8 | 14 => {
            "let this user write to the file in url and to its folder, where SQLite keeps two more files \
             (chown both to it), or name another file"
        }
        13 => "free some space on the disk of the file in url",
        26 => "the file in url is no database of SQLite; name another",
        _ => return None,
    })
}

/// By SQLSTATE (Postgres' documentation, appendix A); none if the rows are to blame.
fn postgres(code: &str) -> Option<Trouble> {
    Some(match code {
        "25006" => Trouble::ReadOnly,
        "53100" => Trouble::Full,
        "42501" | "3D000" => Trouble::Denied,
        _ => match code.get(..2).unwrap_or_default() {
            // Data exception, integrity violation, program limit exceeded.
            "21" | "22" | "23" | "54" => return None,
            "08" | "57" => Trouble::Unreachable,
            "28" => Trouble::Denied,
            "40" | "53" | "55" => Trouble::Busy,
            "42" => Trouble::Schema,
            _ => Trouble::Other,
        },
    })
}

/// By the low byte of SQLite's result code; none if the rows are to blame.
fn sqlite(code: &str) -> Option<Trouble> {
    Some(match code.parse::<i32>().unwrap_or_default() & 0xff {
        // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH.
        18..=20 => return None,
        // SQLITE_ERROR: of a statement that is tested, a table that is not there.
        1 => Trouble::Schema,
        5 | 6 => Trouble::Busy,
        8 => Trouble::ReadOnly,
        13 => Trouble::Full,
        14 => Trouble::Unreachable,
        _ => Trouble::Other,
    })
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => StoreError::Config(format!(
                "[store] url: the database was migrated by a newer Vidente (its migration {version} is not \
                 known here); install that version or a later one"
            )),
            MigrateError::VersionMismatch(version) => StoreError::Config(format!(
                "[store] url: migration {version} of the database is not this program's; name a database \
                 that nothing else has changed"
            )),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                let text = format!("migration failed: {}{}", said(&error), advice(&error));
                StoreError::Unavailable(StoreError::from(error).trouble(), text)
            }
            error => StoreError::Unavailable(Trouble::Schema, format!("migration failed: {error}")),
        }
    }
}
