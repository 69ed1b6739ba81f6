//! A certificate for this machine alone, made and written to files so that clients can be told to trust it.
//!
//! It never overwrites what it has not made: who gives it the files of a real certificate loses nothing.

use std::{
    fs::{OpenOptions, remove_file},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd,
};

use super::files::{Files, TlsError, is_expired};

/// Whom the certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// By this name, which stands in it as it is, one that was made here is known again.
const NAME: &str = "Tallyroom, self-signed for localhost";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long it is valid: browsers take none that is valid for longer.
const VALID: Duration = DAY.saturating_mul(397);

/// How far a clock may be behind that is to take it.
const CLOCK: Duration = DAY;

/// Sees to it that the files have a certificate for this machine and its key: those that are there are
/// used; where both are missing, or what was made here is expired, new ones are written.
///
/// # Errors
///
/// [`TlsError::HalfThere`]: one is there without the other. [`TlsError::Expired`]: they are somebody
/// else's, and expired. [`TlsError::Unwritable`], and what [`Files::certify`] says of those that are
/// there.
pub fn provide(files: &Files) -> Result<(), TlsError> {
    match (is_there(&files.cert)?, is_there(&files.key)?) {
        (true, true) => renew(files),
        (false, false) => write(files, SystemTime::now()),
        (true, false) => Err(TlsError::HalfThere {
            there: files.cert.clone(),
            missing: files.key.clone(),
        }),
        (false, true) => Err(TlsError::HalfThere {
            there: files.key.clone(),
            missing: files.cert.clone(),
        }),
    }
}

/// Whether there is anything of that name, even a link that leads nowhere.
fn is_there(path: &Path) -> Result<bool, TlsError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(TlsError::Unreadable {
            file: path.to_owned(),
            why: err.to_string(),
        }),
    }
}

/// Replaces what was made here and is expired.
fn renew(files: &Files) -> Result<(), TlsError> {
    let certified = files.certify(&files.read()?)?;
    if !is_expired(&certified) {
        return Ok(());
    }
    let made_here = certified.cert.first().is_some_and(|cert| {
        let mut parts = cert.windows(NAME.len());
        parts.any(|part| part == NAME.as_bytes())
    });
    if !made_here {
        return Err(TlsError::Expired(files.clone()));
    }
    for file in [&files.cert, &files.key] {
        remove_file(file).map_err(|err| unwritable(file, &err))?;
    }
    write(files, SystemTime::now())
}

fn write(files: &Files, now: SystemTime) -> Result<(), TlsError> {
    let (cert, key) = make(now).map_err(|err| TlsError::Setup(err.to_string()))?;
    create(&files.key, 0o600, &key)?;
    create(&files.cert, 0o644, &cert).inspect_err(|_| {
        // A key without its certificate would be in the next start's way.
        let _ = remove_file(&files.key);
    })?;
    log::info!(
        "a self-signed certificate for localhost is written to {}; clients that are given it trust it",
        files.cert.display()
    );
    Ok(())
}

/// A certificate that is valid from `now`, and its key, in PEM.
fn make(now: SystemTime) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK);
    params.not_after = params.not_before + VALID;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let written = || -> io::Result<()> {
        let mut new = OpenOptions::new();
        let mut file = new.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|err| unwritable(path, &err))
}

fn unwritable(path: &Path, err: &io::Error) -> TlsError {
    TlsError::Unwritable {
        file: path.to_owned(),
        why: err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(folder: &Path) -> Files {
        Files {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }

    #[test]
    fn what_was_made_here_is_made_anew_once_it_is_expired() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let read = || {
            (
                fs::read(&files.cert).unwrap(),
                fs::read(&files.key).unwrap(),
            )
        };
        let (just_valid, over) = (VALID - 3 * DAY, VALID + DAY);
        write(&files, SystemTime::now() - just_valid).unwrap();
        let written = read();
        provide(&files).unwrap();
        assert!(read() == written);
        for file in [&files.cert, &files.key] {
            remove_file(file).unwrap();
        }
        write(&files, SystemTime::now() - over).unwrap();
        let expired = read();
        provide(&files).unwrap();
        let renewed = read();
        assert!(renewed.0 != expired.0 && renewed.1 != expired.1);
        let certified = files.certify(&files.read().unwrap()).unwrap();
        assert!(!is_expired(&certified));
    }

    #[test]
    fn what_is_somebody_elses_is_kept_though_it_is_expired() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2020, 1, 1);
        let cert = params.self_signed(&key).unwrap();
        fs::write(&files.cert, cert.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        let refused = provide(&files);
        assert!(matches!(refused, Err(TlsError::Expired(_))), "{refused:?}");
        assert_eq!(fs::read_to_string(&files.cert).unwrap(), cert.pem());
    }
}
