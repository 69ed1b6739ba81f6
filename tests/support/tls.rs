//! TLS before a server, with a certificate of its own.

use std::{path::PathBuf, sync::Arc, thread};

use rcgen::{Certificate, CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// A port at which `localhost` is spoken to by TLS.
pub struct Tls {
    port: u16,
    /// The certificate, for who wants to trust it.
    pub certificate: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tls {
    /// Leads to a server's port, for as long as the test runs.
    pub fn before(server: u16) -> Self {
        let (config, cert) = certified();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let carry = carry(listener, TlsAcceptor::from(Arc::new(config)), server);
            actix_web::rt::System::new().block_on(carry);
        });
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("certificate.pem");
        std::fs::write(&certificate, cert.pem()).unwrap();
        Self {
            port,
            certificate,
            _folder: folder,
        }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }
}

/// What a server of `localhost` needs, and its certificate.
pub fn certified() -> (ServerConfig, Certificate) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (config, cert)
}

async fn carry(listener: std::net::TcpListener, tls: TlsAcceptor, server: u16) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let tls = tls.clone();
        actix_web::rt::spawn(async move {
            // Who does not trust the certificate goes at once.
            let Ok(mut client) = tls.accept(stream).await else {
                return;
            };
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
