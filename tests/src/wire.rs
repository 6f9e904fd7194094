//! HTTP/1.1 byte by byte, over TCP or TLS: for requests that no proper client would make.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// One connection.
#[derive(Debug)]
pub enum Wire {
    /// In clear text.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn tcp(port: u16) -> Result<Wire> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        // Only bounds failure.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Wire::Tcp(stream))
    }

    /// Connects to `localhost` over TLS, trusting one authority.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn tls(port: u16, authority: &Path) -> Result<Wire> {
        let Wire::Tcp(stream) = Wire::tcp(port)? else { unreachable!("made just now") };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    /// Sends text.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        match self {
            Wire::Tcp(stream) => stream.write_all(text.as_bytes())?,
            Wire::Tls(stream) => {
                stream.write_all(text.as_bytes())?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// Reads to the end: the status and all that was answered.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn answer(mut self) -> Result<(u16, String)> {
        let mut bytes = Vec::new();
        let read = match &mut self {
            Wire::Tcp(stream) => stream.read_to_end(&mut bytes),
            Wire::Tls(stream) => stream.read_to_end(&mut bytes),
        };
        // A server that closes on what it did not read resets the connection after its answer.
        if bytes.is_empty() {
            read?;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status =
            text.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("{text:?}"))?;
        Ok((status, text))
    }

    /// GETs a path with further header lines.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn get(mut self, path: &str, headers: &str) -> Result<(u16, String)> {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"))?;
        self.answer()
    }

    /// Reads until some text has come: all up to and with it, and perhaps a little more.
    ///
    /// # Errors
    /// If the answer ends before.
    pub fn until(&mut self, text: &str) -> Result<String> {
        let mut read = String::new();
        let mut bytes = [0; 4096];
        while !read.contains(text) {
            let count = match self {
                Wire::Tcp(stream) => stream.read(&mut bytes)?,
                Wire::Tls(stream) => stream.read(&mut bytes)?,
            };
            ensure!(count > 0, "the answer ended before {text:?}: {read:?}");
            read.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        Ok(read)
    }
}
