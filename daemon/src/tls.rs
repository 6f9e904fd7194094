//! TLS: certificates and keys in PEM files, and what to change where a handshake fails.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};

/// The files of one end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    /// Authorities; none means the system's.
    pub(crate) ca: Option<&'a PathBuf>,
    /// Own certificate, the authorities between it and the root after it.
    pub(crate) cert: Option<&'a PathBuf>,
    /// Own key.
    pub(crate) key: Option<&'a PathBuf>,
}

/// How to meet a server. Reads the files, so validation uses it too.
///
/// # Errors
/// Which file is at fault and why.
pub(crate) fn client(files: Files<'_>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match files.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).with_context(|| format!("{} cannot be used", file.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            ensure!(!roots.is_empty(), "the system has no root certificates; install them or set ca_file");
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let (Some(cert), Some(key)) = (files.cert, files.key) else {
        return Ok(builder.with_no_client_auth());
    };
    builder
        .with_client_auth_cert(certificates(cert)?, private_key(key)?)
        .with_context(|| format!("{} and {} do not make a client certificate", cert.display(), key.display()))
}

/// How to be a server.
///
/// # Errors
/// Which file is at fault and why.
pub(crate) fn server(cert: &Path, key: &Path) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(cert)?, private_key(key)?)
        .with_context(|| {
            format!("{} and {} do not make a certificate and its key", cert.display(), key.display())
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file)
        .with_context(|| format!("{} holds no private key in PEM", file.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("{} is not in PEM", file.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", file.display());
    Ok(certificates)
}

/// Why a server and Vidente do not come to trust each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// No authority that Vidente knows vouches for the server.
    UnknownAuthority,
    /// The server's certificate is for other names.
    WrongName,
    /// The server's certificate, or this machine's clock, is out of date.
    Expired,
    /// The server asks for a certificate and got none.
    NoClientCertificate,
    /// The server does not take the certificate it got.
    ClientCertificate,
    /// The server does not speak TLS on that port.
    NotTls,
    /// Anything else.
    Other,
}

impl Distrust {
    /// What a failed connection tells; none if it failed for other reasons.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Distrust> {
        Some(match rustls_error(error)? {
            rustls::Error::InvalidCertificate(e) => match e {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Distrust::UnknownAuthority
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Distrust::WrongName
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Distrust::Expired,
                _ => Distrust::Other,
            },
            rustls::Error::AlertReceived(alert) => match alert {
                AlertDescription::CertificateRequired => Distrust::NoClientCertificate,
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate => Distrust::ClientCertificate,
                _ => Distrust::Other,
            },
            rustls::Error::InvalidMessage(_) => Distrust::NotTls,
            _ => Distrust::Other,
        })
    }
}

impl fmt::Display for Distrust {
    /// The fix, in terms of the keys of the section that the connection belongs to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distrust::UnknownAuthority => {
                "set ca_file to the certificate of the authority that signed the server's"
            }
            Distrust::WrongName => {
                "write the host in url as the server's certificate names it, or have one made for that name"
            }
            Distrust::Expired => "renew the server's certificate, and see that this machine's clock is right",
            Distrust::NoClientCertificate => {
                "the server asks for a client certificate; set cert_file and key_file"
            }
            Distrust::ClientCertificate => {
                "the server does not take the certificate in cert_file; have its authority sign a new one"
            }
            Distrust::NotTls => "that port does not speak TLS; change the port or the beginning of url",
            Distrust::Other => "check ca_file, cert_file and key_file, and the server's own settings for TLS",
        })
    }
}

/// The TLS library's error in a chain of sources. An I/O error hides it: what it wraps is not its source.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_however_deep_it_is_wrapped() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[from] io::Error);

        let inner = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let outer = Outer(io::Error::other(io::Error::other(inner)));
        assert_eq!(Distrust::of(&outer), Some(Distrust::NoClientCertificate));
        assert_eq!(Distrust::of(&Outer(io::Error::other("gone"))), None);
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(Distrust::of(&expired), Some(Distrust::Expired));
    }
}
