//! How a server is reached: HTTP and WebSocket by awc, TLS by rustls with the certificates that the system trusts.

use std::{io, sync::Arc, time::Duration};

use actix_codec::Framed;
use actix_service::{Service, fn_service};
use actix_tls::connect::{
    ConnectError as TcpError, ConnectInfo, Connection as TcpConnection, Connector as TcpConnector,
    Resolver,
};
use actix_web::rt::net::{TcpSocket, TcpStream};
use awc::{
    BoxedSocket, Connector,
    error::{ConnectError, SendRequestError, WsClientError},
    http::{
        Uri,
        header::{self, HeaderValue},
    },
    ws::{Codec, WebsocketsRequest},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::{
    client::{
        machine::Loss,
        watched::{Ended, Watched},
    },
    ids::ClientId,
};

/// The subprotocol that is spoken, as it is named in a handshake.
const PROTOCOL: &str = "tallyroom.v1";
/// How long a host may take to be found and to take a connection, and then again to agree on TLS.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// No server can be reached by TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("this system has no certificates to trust{}", because(.0))]
    NoCertificates(Option<String>),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Makes what sends requests to a server; `ended` tells of the last connection, so who asks it sends them one after the
/// other.
///
/// It follows no redirects, and waits for an answer for as long as its caller does. What is written goes out at once.
///
/// # Errors
///
/// TLS is asked for by `secure` and this system trusts nobody.
pub fn client(secure: bool, ended: &Ended) -> Result<awc::Client, TlsError> {
    client_with(secure, ended, None)
}

/// As [`client`], but what a server sends finds so little place in the kernel while it is not read.
///
/// # Errors
///
/// As above.
pub fn client_with_little_buffer(
    secure: bool,
    ended: &Ended,
    bytes: u32,
) -> Result<awc::Client, TlsError> {
    client_with(secure, ended, Some(bytes))
}

fn client_with(
    secure: bool,
    ended: &Ended,
    recv_buffer_bytes: Option<u32>,
) -> Result<awc::Client, TlsError> {
    let ended = ended.clone();
    let tcp = TcpConnector::new(Resolver::default()).service();
    let resolver = Resolver::default().service();
    let watched = fn_service(move |asked: ConnectInfo<Uri>| {
        let (tcp, resolver, ended) = (tcp.clone(), resolver.clone(), ended.clone());
        async move {
            let (io, asked) = match recv_buffer_bytes {
                None => tcp.call(asked).await?.into_parts(),
                Some(bytes) => connect_with(resolver.call(asked).await?, bytes).await?,
            };
            // Where the kernel does not know it, actions may wait a moment for each other.
            let _ = io.set_nodelay(true);
            Ok(TcpConnection::new(asked, Watched::new(io, ended)))
        }
    });
    let mut connector = Connector::new()
        .connector(watched)
        // An open socket counts for as long as it lives, so no number of them would do.
        .limit(0)
        .timeout(CONNECT_WITHIN)
        .handshake_timeout(CONNECT_WITHIN);
    if secure {
        connector = connector.rustls_0_23(Arc::new(tls()?));
    }
    let client = awc::Client::builder()
        .connector(connector)
        .disable_redirects()
        .disable_timeout();
    Ok(client.finish())
}

/// Connects to the first of a host's addresses that answers. The size of the buffer must be known before: it is a part
/// of what the kernel promises to take.
async fn connect_with(
    mut asked: ConnectInfo<Uri>,
    recv_buffer_bytes: u32,
) -> Result<(TcpStream, Uri), TcpError> {
    let mut failed = TcpError::NoRecords;
    for address in asked.take_addrs() {
        let connecting = async {
            let socket = match address.is_ipv4() {
                true => TcpSocket::new_v4()?,
                false => TcpSocket::new_v6()?,
            };
            socket.set_recv_buffer_size(recv_buffer_bytes)?;
            socket.connect(address).await
        };
        let connected: io::Result<TcpStream> = connecting.await;
        match connected {
            Ok(io) => return Ok((io, asked.request().clone())),
            Err(err) => failed = TcpError::Io(err),
        }
    }
    Err(failed)
}

fn tls() -> Result<ClientConfig, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        return Err(TlsError::NoCertificates(why));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|err| TlsError::Setup(err.to_string()))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // A WebSocket of awc is one of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Opens a room's socket at a URL as a client of `tallyroom.v1`.
///
/// # Errors
///
/// What the machine makes of it that there is none.
pub async fn open(
    http: &awc::Client,
    url: &str,
    client: ClientId,
    max_message_bytes: usize,
) -> Result<Framed<BoxedSocket, Codec>, Loss> {
    let tokens = [PROTOCOL.to_owned(), format!("client.{}", client.0)];
    let request = http.ws(url).protocols(tokens);
    let (chosen, framed) = shake_hands(request, max_message_bytes).await?;
    match chosen.is_some_and(|chosen| chosen == PROTOCOL) {
        true => Ok(framed),
        false => Err(Loss::Foreign),
    }
}

/// Opens a room's socket at a URL in the classic dialect, which has no subprotocol.
///
/// # Errors
///
/// As above.
pub async fn open_classic(
    http: &awc::Client,
    url: &str,
    max_message_bytes: usize,
) -> Result<Framed<BoxedSocket, Codec>, Loss> {
    let (_, framed) = shake_hands(http.ws(url), max_message_bytes).await?;
    Ok(framed)
}

async fn shake_hands(
    request: WebsocketsRequest,
    max_message_bytes: usize,
) -> Result<(Option<HeaderValue>, Framed<BoxedSocket, Codec>), Loss> {
    let connecting = request.max_frame_size(max_message_bytes).connect();
    let (response, framed) = connecting.await.map_err(|err| loss(&err))?;
    let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    Ok((chosen.cloned(), framed))
}

fn loss(err: &WsClientError) -> Loss {
    match err {
        WsClientError::InvalidResponseStatus(status) => Loss::Denied(status.as_u16()),
        WsClientError::SendRequest(err) => Loss::Cut(sentence(err)),
        err => Loss::Cut(format!("the server answered wrongly: {err}")),
    }
}

/// Why a request was not answered, for people.
pub fn sentence(err: &SendRequestError) -> String {
    match err {
        SendRequestError::Connect(ConnectError::Resolver(err)) => {
            format!("the host is not known: {err}")
        }
        SendRequestError::Connect(ConnectError::NoRecords) => "the host is not known".to_owned(),
        SendRequestError::Connect(ConnectError::Timeout) => "the host does not answer".to_owned(),
        SendRequestError::Connect(ConnectError::Io(err)) => err.to_string(),
        SendRequestError::Connect(ConnectError::Disconnected) | SendRequestError::Response(_) => {
            "the connection broke".to_owned()
        }
        SendRequestError::Send(err) => format!("the connection broke: {err}"),
        err => err.to_string(),
    }
}

fn because(why: &Option<String>) -> String {
    why.as_ref()
        .map_or_else(String::new, |why| format!(": {why}"))
}
