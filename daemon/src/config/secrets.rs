//! Files that hold secrets or keys: where they are looked for, and who else could read what they protect.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::{Config, Http, Mqtt, Store};
use crate::secret::Secret;
use crate::store::unverified_host;
use crate::tls::Files;

/// Tokens with fewer characters are warned of: they are not limited in how often they may be tried.
const SHORT: usize = 16;

impl Mqtt {
    pub(crate) fn tls_files(&self) -> Files<'_> {
        Files { ca: self.ca_file.as_ref(), cert: self.cert_file.as_ref(), key: self.key_file.as_ref() }
    }
}

impl Store {
    pub(crate) fn tls_files(&self) -> Files<'_> {
        Files { ca: self.ca_file.as_ref(), cert: self.cert_file.as_ref(), key: self.key_file.as_ref() }
    }
}

impl Http {
    pub(crate) fn tls_files(&self) -> Files<'_> {
        Files { ca: None, cert: self.cert_file.as_ref(), key: self.key_file.as_ref() }
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.listen.rsplit_once(':').is_some_and(|(host, _)| is_local(host))
    }
}

/// Whether a host is this machine, as far as its name tells.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Config {
    /// Takes names of files without a directory to be credentials of systemd's, if there are such.
    pub(super) fn find_credentials(&mut self, directory: Option<&Path>) {
        let Some(directory) = directory else { return };
        let Config { mqtt, store, http, .. } = self;
        for file in [
            &mut mqtt.password_file,
            &mut mqtt.ca_file,
            &mut mqtt.cert_file,
            &mut mqtt.key_file,
            &mut store.password_file,
            &mut store.ca_file,
            &mut store.cert_file,
            &mut store.key_file,
            &mut http.token_file,
            &mut http.cert_file,
            &mut http.key_file,
        ]
        .into_iter()
        .flatten()
        {
            let credential = directory.join(&*file);
            if file.components().count() == 1 && credential.is_file() {
                *file = credential;
            }
        }
    }

    /// What works but lets others in, each entry `key: what; fix`.
    #[must_use]
    pub fn exposed(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Config { mqtt, store, http, .. } = self;
        let url = Url::parse(&mqtt.url).ok();
        if let Some(url) = url.filter(|u| u.scheme() == "mqtt" && mqtt.password_file.is_some())
            && let Some(host) = url.host()
            && !is_local(&host_text(&host))
        {
            warnings.push(format!("mqtt.url: the password goes to {host} in clear text; write mqtts://"));
        }
        if let Some(host) = unverified_host(store).filter(|host| !is_local(host)) {
            warnings.push(format!(
                "store.url: whoever is between here and {host} can read and change what is stored; set \
                 store.ca_file, or add ?sslmode=verify-full to trust the system's authorities"
            ));
        }
        match (&http.token_file, &http.cert_file) {
            _ if http.is_local() => {}
            (None, _) => warnings.push(format!(
                "http.listen: whoever reaches {} can read all series; set http.token_file, or listen on \
                 127.0.0.1",
                http.listen
            )),
            (Some(_), None) => warnings.push(format!(
                "http.listen: the token goes over {} in clear text; set http.cert_file and http.key_file, or \
                 listen on 127.0.0.1 behind a proxy that has TLS",
                http.listen
            )),
            (Some(_), Some(_)) => {}
        }
        if let Some(Ok(token)) = http.token_file.as_deref().map(Secret::read)
            && token.expose().len() < SHORT
        {
            warnings.push(format!(
                "http.token_file: holds fewer than {SHORT} characters and can be guessed; make a token with: \
                 openssl rand -hex 32"
            ));
        }
        for (key, file) in [
            ("mqtt.password_file", &mqtt.password_file),
            ("mqtt.key_file", &mqtt.key_file),
            ("store.password_file", &store.password_file),
            ("store.key_file", &store.key_file),
            ("http.token_file", &http.token_file),
            ("http.key_file", &http.key_file),
        ] {
            if let Some(file) = file.as_ref().filter(|file| open_to_all(file)) {
                let file = file.display();
                warnings.push(format!("{key}: every user of this machine can read {file}; chmod 600 {file}"));
            }
        }
        warnings
    }
}

fn host_text(host: &Host<&str>) -> String {
    match host {
        // A URL whose scheme the library does not know has addresses as names.
        Host::Domain(name) => (*name).to_owned(),
        other => other.to_string(),
    }
}

fn open_to_all(file: &PathBuf) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const STREAM: &str = "[[stream]]\nname = \"a\"\ntopic = \"b/{x}\"\n";

    fn warnings(text: &str) -> Vec<String> {
        let config = Config::parse(&format!("{text}\n{STREAM}")).unwrap();
        assert_eq!(config.problems(), [""; 0], "{text}");
        config.warnings()
    }

    #[test]
    fn what_lets_others_in_is_said_with_key_and_fix() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, if name == "short" { "hunter2" } else { "0123456789abcdef" }).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (safe, open, short) = (file("safe", 0o640), file("open", 0o644), file("short", 0o600));
        for (text, expected) in [
            (
                format!("[mqtt]\nurl = 'mqtt://broker'\nusername = 'u'\npassword_file = '{safe}'"),
                "mqtt.url: the",
            ),
            (
                format!("[mqtt]\nurl = 'mqtt://10.0.0.1'\nusername = 'u'\npassword_file = '{safe}'"),
                "mqtt.url: the",
            ),
            ("[store]\nurl = 'postgres://u@db/d'".into(), "store.url: whoever"),
            ("[store]\nurl = 'postgres://u@db/d?sslmode=require'".into(), "store.url: whoever"),
            ("[http]\nlisten = '0.0.0.0:9464'".into(), "http.listen: whoever"),
            ("[http]\nlisten = '[::]:9464'".into(), "http.listen: whoever"),
            (format!("[http]\nlisten = '0.0.0.0:9464'\ntoken_file = '{safe}'"), "http.listen: the token"),
            (format!("[http]\ntoken_file = '{open}'"), "http.token_file: every user"),
            (format!("[http]\ntoken_file = '{short}'"), "http.token_file: holds fewer than 16"),
            (format!("[store]\npassword_file = '{open}'"), "store.password_file: every user"),
            (format!("[mqtt]\nusername = 'u'\npassword_file = '{open}'"), "mqtt.password_file: every user"),
        ] {
            let found = warnings(&text);
            assert!(found.len() == 1 && found.concat().starts_with(expected), "{text}: {found:?}");
        }
        for text in [
            String::new(),
            "[mqtt]\nurl = 'mqtt://broker'".into(),
            format!("[mqtt]\nurl = 'mqtt://[::1]'\nusername = 'u'\npassword_file = '{safe}'"),
            format!("[mqtt]\nurl = 'mqtt://localhost'\nusername = 'u'\npassword_file = '{safe}'"),
            "[store]\nurl = 'postgres://u@db/d?sslmode=verify-full'".into(),
            "[store]\nurl = 'postgres:///d?host=/run/postgresql'".into(),
            "[store]\nurl = 'postgres://u@[::1]/d'".into(),
            "[store]\nurl = 'sqlite:///tmp/x.db'".into(),
            format!("[http]\nlisten = 'localhost:9464'\ntoken_file = '{safe}'"),
        ] {
            assert_eq!(warnings(&text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_bare_name_is_a_credential_if_systemd_passed_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("http-token"), "hunter2").unwrap();
        let text = "[http]\ntoken_file = 'http-token'\n[store]\npassword_file = 'x/http-token'\n\
                    [mqtt]\npassword_file = 'other'";
        let mut config = Config::parse(&format!("{text}\n{STREAM}")).unwrap();
        config.find_credentials(Some(dir.path()));
        assert_eq!(config.http.token_file, Some(dir.path().join("http-token")));
        assert_eq!(config.store.password_file, Some("x/http-token".into()));
        assert_eq!(config.mqtt.password_file, Some("other".into()));
    }
}
