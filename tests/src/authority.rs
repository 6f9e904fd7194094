//! Certificates made for one test.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority that signs; its files are in PEM, in the folder it was given.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    certificate: PathBuf,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority; its certificate is `NAME.pem`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn new(dir: &Path, name: &str) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = dir.join(format!("{name}.pem"));
        std::fs::write(&certificate, params.self_signed(&key)?.pem())?;
        Ok(Authority { issuer: Issuer::new(params, key), dir: dir.to_owned(), certificate })
    }

    /// The file of the authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A server for names and addresses.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn server(&self, name: &str, hosts: &[&str]) -> Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        self.sign(name, CertificateParams::new(hosts)?)
    }

    /// A server whose time is over.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn expired(&self, name: &str, hosts: &[&str]) -> Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(name, params)
    }

    /// A client; its common name is `name`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.sign(name, CertificateParams::default())
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<Identity> {
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let identity = Identity {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}
