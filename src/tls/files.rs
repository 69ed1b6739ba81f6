//! The two files of a server's certificate: how they are read and understood, and what is wrong with them.
//!
//! No sentence from here holds anything of what is in them but their names.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};

/// What a file may have at most: a chain is a few KiB, and what is larger is something else.
const MAX_BYTES: u64 = 1024 * 1024;

/// Where a server's certificate and its key are, each in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1, and not encrypted.
    pub key: PathBuf,
}

/// What was in the files; not to be printed.
#[derive(PartialEq, Eq)]
pub struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Why a server cannot speak TLS by its files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("cannot read {}: {why}", .file.display())]
    Unreadable { file: PathBuf, why: String },
    #[error("{} has more than 1 MiB, which is no certificate or key", .0.display())]
    TooLarge(PathBuf),
    #[error("{} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("the certificate in {} cannot be used: {why}", .file.display())]
    BadCertificate { file: PathBuf, why: String },
    #[error("{} has no private key in PEM; one that is encrypted cannot be read", .0.display())]
    NoKey(PathBuf),
    #[error("the private key in {} cannot be used: {why}", .file.display())]
    BadKey { file: PathBuf, why: String },
    #[error("the private key in {} is not that of the certificate in {}", .0.key.display(), .0.cert.display())]
    Mismatch(Files),
    #[error(
        "{} is there and {} is not, so no certificate is made: bring the one back, or remove the other",
        .there.display(), .missing.display()
    )]
    HalfThere { there: PathBuf, missing: PathBuf },
    #[error(
        "the certificate in {} is expired, and was not made here, so it is kept: renew it, or remove it \
         and {}", .0.cert.display(), .0.key.display()
    )]
    Expired(Files),
    #[error("cannot write {}: {why}", .file.display())]
    Unwritable { file: PathBuf, why: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl Files {
    /// Reads both. It blocks for as long as the disk does.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unreadable`] and [`TlsError::TooLarge`] name the file.
    pub fn read(&self) -> Result<Content, TlsError> {
        Ok(Content {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
        })
    }

    /// Understands what was read from them.
    ///
    /// # Errors
    ///
    /// Names the file that is wrong, or both where the key is another certificate's.
    pub fn certify(&self, content: &Content) -> Result<CertifiedKey, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.cert).collect();
        let chain = chain.unwrap_or_default();
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.cert.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| TlsError::NoKey(self.key.clone()))?;
        let key = ring::sign::any_supported_type(&key).map_err(|err| TlsError::BadKey {
            file: self.key.clone(),
            why: err.to_string(),
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(Error::InconsistentKeys(_)) => Err(TlsError::Mismatch(self.clone())),
            Err(err) => Err(TlsError::BadCertificate {
                file: self.cert.clone(),
                why: err.to_string(),
            }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?.take(MAX_BYTES + 1);
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MAX_BYTES => Err(TlsError::TooLarge(path.to_owned())),
        Ok(bytes) => Ok(bytes),
        Err(err) => Err(TlsError::Unreadable {
            file: path.to_owned(),
            why: err.to_string(),
        }),
    }
}

/// Whether the time of a server's certificate is over; what cannot be told is not.
pub fn is_expired(certified: &CertifiedKey) -> bool {
    let Some(cert) = certified.cert.first() else {
        return false;
    };
    // A verifier that trusts this one alone looks at its time before it looks for who signed it.
    let mut roots = RootCertStore::empty();
    if roots.add(cert.clone()).is_err() {
        return false;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let (Ok(verifier), Ok(name)) = (verifier, ServerName::try_from("localhost")) else {
        return false;
    };
    let verified = verifier.verify_server_cert(cert, &[], &name, &[], UnixTime::now());
    matches!(
        verified,
        Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        ))
    )
}
