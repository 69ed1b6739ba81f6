//! The flags of TLS, for any program that serves.

use std::{io, path::PathBuf};

use clap::{Args, builder::BoolishValueParser};

use crate::tls::{Tls, files::Files, self_signed};

/// The files of a certificate that is made where none are named.
const SELF_SIGNED: (&str, &str) = ("localhost.pem", "localhost-key.pem");

/// How to serve `https`; none of them: `http`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub struct TlsFlags {
    /// File of the certificate by which to serve https, in PEM, and after it those that lead to an
    /// authority. What is new in it is shown to new connections within 10 s, at once on SIGHUP
    #[arg(long, value_name = "FILE", env = "TALLYROOM_TLS_CERT")]
    #[arg(requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// File of the certificate's private key, in PEM, not encrypted
    #[arg(long, value_name = "FILE", env = "TALLYROOM_TLS_KEY")]
    #[arg(requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Serves https by a certificate for this machine, which is made where the two files are missing,
    /// by default `localhost.pem` and `localhost-key.pem`; give the first to clients to trust
    #[arg(long, env = "TALLYROOM_TLS_SELF_SIGNED", value_parser = BoolishValueParser::new())]
    pub tls_self_signed: bool,
}

impl TlsFlags {
    /// Loads the certificate, if https is to be served; makes it first where that is asked for.
    ///
    /// Needs an actix system.
    ///
    /// # Errors
    ///
    /// Names the file that cannot be used, or written.
    pub fn open(&self) -> io::Result<Option<Tls>> {
        let Some(files) = self.files() else {
            return Ok(None);
        };
        if self.tls_self_signed {
            self_signed::provide(&files).map_err(io::Error::other)?;
        }
        Tls::open(files).map(Some).map_err(io::Error::other)
    }

    fn files(&self) -> Option<Files> {
        let named = self.tls_cert.clone().zip(self.tls_key.clone());
        let made = || {
            let (cert, key) = SELF_SIGNED;
            (cert.into(), key.into())
        };
        named
            .or_else(|| self.tls_self_signed.then(made))
            .map(|(cert, key)| Files { cert, key })
    }
}
