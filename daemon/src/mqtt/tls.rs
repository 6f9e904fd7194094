//! TLS towards the broker.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Mqtt;

/// The TLS configuration that `[mqtt]` describes. Reads the files, so validation uses it too.
///
/// # Errors
/// Which file is at fault and why.
pub(crate) fn client_config(mqtt: &Mqtt) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &mqtt.ca_file {
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
    let (Some(cert_file), Some(key_file)) = (&mqtt.cert_file, &mqtt.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key_file)
        .with_context(|| format!("{} holds no private key in PEM", key_file.display()))?;
    builder.with_client_auth_cert(certificates(cert_file)?, key).with_context(|| {
        format!("{} and {} do not make a client certificate", cert_file.display(), key_file.display())
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("{} is not in PEM", file.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", file.display());
    Ok(certificates)
}
