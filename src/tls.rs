//! TLS that the server itself speaks: its certificate, the handshakes, and how a new certificate takes
//! the place of an old one.
//!
//! Whoever shakes hands is shown the certificate that is current then; a connection keeps its keys, so
//! that it goes on whatever becomes of the files. Files that cannot be used change nothing.

pub mod files;
pub mod self_signed;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use actix_web::rt::{
    net::TcpStream,
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::files::{Content, Files, TlsError, is_expired};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The protocol that is agreed on: a WebSocket is one of HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// A server's certificate, loaded and ready.
pub struct Tls {
    files: Files,
    /// What the current certificate was made of.
    content: Content,
    current: Arc<Current>,
    hangup: Signal,
    trouble: Trouble,
}

impl Tls {
    /// Loads the files, and listens to SIGHUP from then on.
    ///
    /// Needs an actix system.
    ///
    /// # Errors
    ///
    /// Names the file that cannot be used.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let content = files.read()?;
        let certified = files.certify(&content)?;
        let hangup = signal(SignalKind::hangup());
        let hangup = hangup.map_err(|err| TlsError::Setup(err.to_string()))?;
        warn_if_expired(&files, &certified);
        Ok(Self {
            files,
            content,
            current: Arc::new(Current(RwLock::new(Arc::new(certified)))),
            hangup,
            trouble: Trouble::default(),
        })
    }

    /// What shakes hands by the certificate that is current then; a client may take `within` for it,
    /// `None`: as long as it likes.
    ///
    /// # Errors
    ///
    /// [`TlsError::Setup`], where rustls does not know the versions.
    pub fn handshakes(&self, within: Option<Duration>) -> Result<Handshakes, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|err| TlsError::Setup(err.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Handshakes {
            acceptor: Arc::new(config).into(),
            within,
        })
    }

    /// Keeps the certificate as the files are: looks at them every 2 s, and at once on SIGHUP.
    ///
    /// It never ends by itself, and may be dropped at any time.
    pub async fn watch(mut self) -> Infallible {
        loop {
            let asked = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                () = sleep(LOOK) => false,
            };
            let files = self.files.clone();
            if let Ok(read) = spawn_blocking(move || files.read()).await {
                self.judge(read, asked);
            }
        }
    }

    /// Takes what was read where it is new and can be used. `asked`: somebody waits for a word on it.
    fn judge(&mut self, read: Result<Content, TlsError>, asked: bool) {
        let file = self.files.cert.display();
        let loaded = match read {
            Ok(content) if content == self.content => Ok(None),
            Ok(content) => {
                let certified = self.files.certify(&content);
                certified.map(|certified| Some((certified, content)))
            }
            Err(why) => Err(why),
        };
        match loaded {
            Ok(None) => {
                self.trouble = Trouble::default();
                if asked {
                    log::info!("the certificate in {file} is the one in use");
                }
            }
            Ok(Some((certified, content))) => {
                self.trouble = Trouble::default();
                log::info!("new connections are shown the new certificate in {file}");
                warn_if_expired(&self.files, &certified);
                self.content = content;
                self.current.set(certified);
            }
            Err(why) => {
                if self.trouble.is_news(&why, asked) {
                    log::error!("{why}; the certificate from before stays in use");
                }
            }
        }
    }
}

/// What the files were last found to be wrong in.
#[derive(Default)]
struct Trouble {
    last: Option<TlsError>,
    said: bool,
}

impl Trouble {
    /// Whether to say what was found: once, and not before it is found twice, since the files are
    /// written one after the other, and between the two they do not match. Who has asked is told.
    fn is_news(&mut self, why: &TlsError, asked: bool) -> bool {
        let lasts = self.last.as_ref() == Some(why);
        let said = lasts && self.said;
        let news = asked || (lasts && !said);
        *self = Self {
            last: Some(why.clone()),
            said: said || news,
        };
        news
    }
}

fn warn_if_expired(files: &Files, certified: &CertifiedKey) {
    if is_expired(certified) {
        let file = files.cert.display();
        log::warn!("the certificate in {file} is expired: clients will not trust it");
    }
}

/// The certificate that is shown to whoever shakes hands now.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn set(&self, certified: CertifiedKey) {
        // It is replaced in one step, so no panic can leave half of it.
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(certified);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

/// What agrees on TLS with those who connect.
#[derive(Clone)]
pub struct Handshakes {
    acceptor: TlsAcceptor,
    within: Option<Duration>,
}

impl Handshakes {
    /// Shakes hands with who connected. Dropping the future cuts the connection.
    ///
    /// # Errors
    ///
    /// Where the client speaks something else, or takes too long; it is cut then.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accept = self.acceptor.accept(stream);
        match self.within {
            None => accept.await,
            Some(within) => timeout(within, accept)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_when_it_lasts_and_to_who_asks() {
        let key = TlsError::NoKey("a".into());
        let cert = TlsError::NoCertificate("b".into());
        let mut trouble = Trouble::default();
        let mut is_news = |why: &TlsError, asked| trouble.is_news(why, asked);
        assert!(!is_news(&key, false));
        assert!(!is_news(&cert, false) && is_news(&cert, false) && !is_news(&cert, false));
        assert!(!is_news(&key, false) && is_news(&key, false) && !is_news(&key, false));
        assert!(is_news(&key, true) && is_news(&cert, true) && !is_news(&cert, false));
    }
}
