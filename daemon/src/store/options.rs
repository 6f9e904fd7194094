//! How `[store]` says to reach Postgres.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::StoreError;
use crate::config;
use crate::secret::Secret;

/// What the address may say besides user, host and database. Not `password`; and the library would
/// log one that it does not know with its value.
const PARAMETERS: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "user",
    "dbname",
    "options",
    "application_name",
];

/// What is wrong with the address of a Postgres, and what to do; nothing of what it holds.
pub(crate) fn postgres_url_problem(config: &config::Store) -> Option<String> {
    let Ok(url) = Url::parse(&config.url) else {
        return Some("is no URL; write postgres://user@host/database".into());
    };
    let mut names = url.query_pairs().map(|(name, _)| name);
    if url.password().is_some() || names.clone().any(|name| name == "password") {
        return Some("holds a password; put it into a file and name that in password_file".into());
    }
    if let Some(name) = names.find(|name| !PARAMETERS.contains(&&**name)) {
        return Some(format!(
            "has the parameter {name}, which is not one of {}; remove it",
            PARAMETERS.join(", ")
        ));
    }
    if verified(config) && url.query_pairs().any(|(name, _)| name.starts_with("ssl")) {
        return Some(
            "has a parameter of TLS beside ca_file or cert_file, with which the server is verified in full; \
             remove it"
                .into(),
        );
    }
    PgConnectOptions::from_str(&config.url).is_err().then(|| {
        "has a parameter that makes no sense; see that port is a number and sslmode one of disable, prefer, \
         require, verify-ca and verify-full"
            .into()
    })
}

/// Whether the files of TLS call for it.
fn verified(config: &config::Store) -> bool {
    config.ca_file.is_some() || config.cert_file.is_some()
}

/// The host of the store, if somebody between here and there could pass for it or listen.
pub(crate) fn unverified_host(config: &config::Store) -> Option<String> {
    if !config.url.starts_with("postgres") || verified(config) {
        return None;
    }
    let options = PgConnectOptions::from_str(&config.url).ok()?;
    let local = options.get_socket().is_some() || options.get_host().starts_with('/');
    (!local && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull))
        .then(|| options.get_host().to_owned())
}

/// The library's options.
pub(super) fn postgres(config: &config::Store) -> Result<PgConnectOptions, StoreError> {
    let wrong = |key: &str, reason: String| StoreError::Config(format!("[store] {key}: {reason}"));
    if let Some(problem) = postgres_url_problem(config) {
        return Err(wrong("url", problem));
    }
    let mut options = PgConnectOptions::from_str(&config.url)
        .map_err(|_| wrong("url", "cannot be used".into()))?
        .application_name("vidente")
        .disable_statement_logging();
    if let Some(file) = &config.password_file {
        options = options.password(Secret::read(file).map_err(|e| wrong("password_file", e))?.expose());
    }
    if verified(config) {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    if let Some(file) = &config.ca_file {
        options = options.ssl_root_cert(file);
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(url: &str) -> config::Store {
        config::Store { url: url.to_owned(), ..config::Store::default() }
    }

    #[test]
    fn an_address_is_refused_for_what_it_must_not_hold_and_not_quoted() {
        for (url, expected) in [
            ("postgres://u:hunter2@h/d", "holds a password"),
            ("postgres://u@h/d?password=hunter2", "holds a password"),
            ("postgres://u@h/d?sslmode=require&pass=hunter2", "has the parameter pass"),
            ("postgres://u@h/d?sslmode=hunter2", "has a parameter that makes no sense"),
            ("postgres://u@h/d?port=hunter2", "has a parameter that makes no sense"),
            ("postgres://u@hunter2:x/d", "is no URL"),
        ] {
            let problem = postgres_url_problem(&store(url)).unwrap_or_default();
            assert!(problem.starts_with(expected) && !problem.contains("hunter2"), "{url}: {problem}");
        }
        let with_ca = |url| config::Store { ca_file: Some("ca.pem".into()), ..store(url) };
        assert!(postgres_url_problem(&with_ca("postgres://u@h/d?sslmode=disable")).is_some());
        assert_eq!(postgres_url_problem(&with_ca("postgres://u@h/d?host=db")), None);
    }

    #[test]
    fn files_of_tls_mean_that_the_server_is_verified() {
        for config in [
            config::Store { ca_file: Some("ca.pem".into()), ..store("postgres://u@h/d") },
            config::Store { cert_file: Some("c.pem".into()), ..store("postgres://u@h/d") },
            store("postgres://u@h/d?sslmode=verify-full"),
        ] {
            let mode = postgres(&config).map(|o| o.get_ssl_mode());
            assert!(matches!(mode, Ok(PgSslMode::VerifyFull)), "{config:?}: {mode:?}");
            assert_eq!(unverified_host(&config), None);
        }
        assert_eq!(unverified_host(&store("postgres://u@h/d?sslmode=verify-ca")).as_deref(), Some("h"));
    }
}
