//! Sockets over TLS that the server itself speaks, as in an application that serves `https`: a
//! connection may hold what it was given, and nothing of it may be lost or come late.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    thread,
};

use actix::Actor;
use actix_http::{HttpService, Protocol, Request};
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::{
    App, Error,
    dev::{AppConfig, ServiceResponse},
    rt,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring,
    pki_types::CertificateDer,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};
use support::{Event, PATIENCE, PLUS, in_process::transport, tls::certified};
use tallyroom::{
    Counter,
    http::{page::Page, site},
    journal::memory::MemoryJournal,
    limits::Limits,
    model::{By, Model},
    rejection::Rejection,
    rooms::Rooms,
    socket::{Sockets, Transport, admission::Admission, direct::UpgradeFactory},
};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

/// A server on a thread of its own that speaks TLS.
struct Secure {
    port: u16,
    certificate: CertificateDer<'static>,
    stop: Option<oneshot::Sender<()>>,
}

impl Secure {
    fn of<M: Model>(model: M) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (config, certificate) = certified();
        let tls = TlsAcceptor::from(Arc::new(config));
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            let serve = async move {
                let limits = Arc::new(Limits {
                    heartbeat: None,
                    session_rate: None,
                    max_message_bytes: None,
                    max_state_bytes: None,
                    ..Limits::default()
                });
                let journal = Arc::new(MemoryJournal::new());
                let rooms = Rooms::<M>::new(journal.clone(), limits.clone()).start();
                let sockets = Sockets::new(model, rooms, Admission::default(), limits);
                let app = || app(sockets.clone(), journal.clone());
                let http = HttpService::build();
                match transport() {
                    Transport::Direct => {
                        let upgrade = UpgradeFactory::new(sockets.clone(), app());
                        let http = http.upgrade(upgrade).finish(app());
                        accept(listener, tls, http.new_service(()).await.unwrap());
                    }
                    Transport::Embedded => {
                        let http = http.finish(app());
                        accept(listener, tls, http.new_service(()).await.unwrap());
                    }
                }
                // A sender that is dropped is the end, too.
                let _ = stopped.await;
                sockets.drain().await;
            };
            rt::System::new().block_on(serve);
        });
        Self {
            port,
            certificate: certificate.der().clone(),
            stop: Some(stop),
        }
    }

    fn stop(&mut self) {
        self.stop.take();
    }

    fn client(&self) -> Client {
        let stream = support::connect(("127.0.0.1", self.port));
        self.client_by(stream)
    }

    /// One that takes little into its own buffer before the server has to keep the rest.
    fn client_with_little_buffer(&self) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address: SocketAddr = ([127, 0, 0, 1], self.port).into();
        socket.connect(&address.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.client_by(socket.into())
    }

    fn client_by(&self, stream: TcpStream) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let request = format!("wss://localhost:{}/", self.port);
        let request = request.into_client_request().unwrap();
        let (socket, _) = tungstenite::client(request, StreamOwned::new(tls, stream)).unwrap();
        Client { socket }
    }
}

fn app<M: Model>(
    sockets: Sockets<M>,
    journal: Arc<MemoryJournal>,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse,
    Error = Error,
    InitError = (),
    Future: 'static,
    Service: Service<Request, Future: 'static> + 'static,
> {
    let app = App::new();
    let app = app.configure(site(sockets, journal, Page::default()));
    map_config(app, |()| AppConfig::default())
}

type Connected = (
    TlsStream<tokio::net::TcpStream>,
    Protocol,
    Option<SocketAddr>,
);

fn accept<S>(listener: TcpListener, tls: TlsAcceptor, http: S)
where
    S: Service<Connected> + 'static,
{
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let http = Rc::new(http);
    rt::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            SockRef::from(&stream).set_tcp_nodelay(true).unwrap();
            // As the server does, so that a connection that takes no more says so early.
            #[cfg(target_os = "linux")]
            SockRef::from(&stream).set_tcp_notsent_lowat(4096).unwrap();
            let (tls, http) = (tls.clone(), http.clone());
            rt::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    let _ = http.call((stream, Protocol::Http1, Some(peer))).await;
                }
            });
        }
    });
}

struct Client {
    socket: WebSocket<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    /// The next event, as it came.
    fn next(&mut self) -> Result<String, Option<u16>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => return Err(frame.map(|frame| frame.code.into())),
                Ok(_) => {}
                Err(err) => panic!("it ended without a close frame: {err}"),
            }
        }
    }

    fn event(&mut self) -> Event {
        Event::read(&self.next().unwrap())
    }

    fn state(&mut self) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.next().unwrap()).unwrap();
            if event["type"] == "state" {
                return event["value"].clone();
            }
        }
    }

    fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Reads what comes after the close frame: whether the server ended the connection as TLS wants it.
    fn ends_well(mut self) -> bool {
        // The client's close frame goes out while it reads on.
        while self.socket.read().is_ok() {}
        let tls = self.socket.get_mut();
        let _ = tls.flush();
        matches!(tls.read(&mut [0]), Ok(0))
    }
}

#[test]
fn two_clients_count_and_a_stop_ends_their_connections_well() {
    let mut server = Secure::of(Counter);
    let mut ann = server.client();
    assert_eq!(
        (ann.event(), ann.event()),
        (Event::Users(1), Event::State(0))
    );
    let mut bob = server.client();
    assert_eq!(
        (bob.event(), bob.event()),
        (Event::Users(2), Event::State(0))
    );
    assert_eq!(ann.event(), Event::Users(2));
    for value in (1..100).step_by(2) {
        ann.send(PLUS);
        assert_eq!(
            (ann.event(), bob.event()),
            (Event::State(value), Event::State(value))
        );
        bob.send(PLUS);
        let next = Event::State(value + 1);
        assert_eq!((ann.event(), bob.event()), (next.clone(), next));
    }
    server.stop();
    for mut client in [ann, bob] {
        assert_eq!(client.next(), Err(Some(1012)));
        assert!(client.ends_well(), "it was cut without a word");
    }
}

#[test]
fn who_closes_is_answered_and_the_connection_ends_well() {
    let server = Secure::of(Counter);
    let mut client = server.client();
    client.state();
    client.socket.close(None).unwrap();
    assert_eq!(client.next(), Err(None));
    assert!(client.ends_well(), "it was cut without a word");
    let mut next = server.client();
    assert_eq!(next.event(), Event::Users(1));
}

/// A value of as many bytes as one wants, which begins with how often it was changed.
struct Large;

#[derive(Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Resize {
    Resize { bytes: usize },
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Text {
    changes: u64,
    bytes: usize,
}

impl Model for Large {
    const NAME: &'static str = "large";
    type State = Text;
    type Action = Resize;

    fn apply(state: &mut Text, Resize::Resize { bytes }: &Resize, _: &By) -> Result<(), Rejection> {
        *state = Text {
            changes: state.changes + 1,
            bytes: *bytes,
        };
        Ok(())
    }

    fn view(state: &Text) -> impl Serialize + '_ {
        text(state.changes, state.bytes)
    }
}

fn text(changes: u64, bytes: usize) -> String {
    format!("{changes} {}", "x".repeat(bytes))
}

fn resize(bytes: usize) -> String {
    format!(r#"{{"action":"resize","bytes":{bytes}}}"#)
}

#[test]
fn large_frames_come_whole() {
    const BYTES: usize = 1 << 20;
    let server = Secure::of(Large);
    let (mut ann, mut slow) = (server.client(), server.client_with_little_buffer());
    assert_eq!(
        (ann.state(), slow.state()),
        (text(0, 0).into(), text(0, 0).into())
    );
    for changes in 1..=8 {
        let bytes = BYTES + changes as usize;
        ann.send(&resize(bytes));
        let expected = Value::from(text(changes, bytes));
        assert!(
            ann.state() == expected,
            "another value was expected at {changes}"
        );
        assert!(
            slow.state() == expected,
            "another value was expected at {changes}"
        );
    }
}

/// What TLS had taken was thrown away when the session ended.
#[test]
fn what_was_told_before_the_close_comes_whole_to_a_slow_reader() {
    const BYTES: usize = 60_000;
    let mut server = Secure::of(Large);
    let (mut ann, mut slow) = (server.client(), server.client_with_little_buffer());
    assert_eq!(
        (ann.state(), slow.state()),
        (text(0, 0).into(), text(0, 0).into())
    );
    ann.send(&resize(BYTES));
    ann.state();
    server.stop();
    assert_eq!(ann.next(), Err(Some(1012)));
    drop(ann);
    assert!(slow.state() == text(1, BYTES));
    let mut next = slow.next();
    while next.is_ok() {
        next = slow.next();
    }
    assert_eq!(next, Err(Some(1012)));
    assert!(slow.ends_well(), "it was cut without a word");
}

/// The same, where it is the client that closes.
#[test]
fn what_was_told_before_the_clients_close_comes_whole_too() {
    const BYTES: usize = 60_000;
    let server = Secure::of(Large);
    let mut ann = server.client();
    ann.state();
    let mut slow = server.client_with_little_buffer();
    slow.state();
    ann.send(&resize(BYTES));
    while ann.state() != text(1, BYTES) {}
    slow.socket.close(None).unwrap();
    assert_eq!(ann.event(), Event::Users(1));
    assert!(slow.state() == text(1, BYTES));
    assert_eq!(slow.next(), Err(None));
    assert!(slow.ends_well(), "it was cut without a word");
}

#[test]
fn who_reads_slowly_goes_on_with_the_newest() {
    const CHANGES: u64 = 300;
    const BYTES: usize = 10_000;
    let server = Secure::of(Large);
    let (mut ann, mut slow) = (server.client(), server.client_with_little_buffer());
    slow.state();
    for changes in 1..=CHANGES {
        ann.send(&resize(BYTES));
        while ann.state() != text(changes, BYTES) {}
    }
    let (mut last, mut told) = (0, 0);
    while last < CHANGES {
        let state = slow.state();
        let (changes, rest) = state.as_str().unwrap().split_once(' ').unwrap();
        assert_eq!(rest.len(), BYTES);
        let changes = changes.parse().unwrap();
        assert!(changes > last, "{changes} after {last}");
        (last, told) = (changes, told + 1);
    }
    // Beside the recent frames, 256 KiB, little is kept for one that is behind, by whomever.
    assert!(told < 100, "{told} were told");
}
