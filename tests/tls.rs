//! TLS by the server itself: whoever trusts its certificate counts over it, a new certificate takes the
//! old one's place while everybody counts on, and who speaks something else disturbs nobody.

mod support;

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use support::{
    Event, PATIENCE, PLUS, Server, await_that, command, connect,
    http::{Answer, exchange_by},
};
use tungstenite::{Message, WebSocket, client::IntoClientRequest};
use uuid::Uuid;

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A folder with a certificate of `localhost` and its key.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self::empty();
        place.renew();
        place
    }

    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cert(&self) -> PathBuf {
        self.path("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.path("key.pem")
    }

    /// Writes a certificate of its own, and gives it.
    fn renew(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.cert(), cert.pem()).unwrap();
        fs::write(self.key(), signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&["--listen", "127.0.0.1:0", "--tls-cert"]);
        command.arg(self.cert()).arg("--tls-key").arg(self.key());
        command.args(args);
        command
    }

    fn start(&self, args: &[&str]) -> Server {
        Server::spawn(self.command(args))
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn trusting(
    certificates: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Agrees on TLS with a server by that name.
fn shake(port: u16, name: &'static str, config: ClientConfig) -> io::Result<Stream> {
    let mut tcp = connect(("127.0.0.1", port));
    let mut tls = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(tls, tcp))
}

/// The same for a server whose certificate is in the file.
fn shake_by(port: u16, path: &Path) -> Stream {
    shake(port, "localhost", trusting(&[certificate(path)], BOTH)).unwrap()
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone()
}

fn get(stream: &mut Stream, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    exchange_by(stream, request.as_bytes())
}

/// A session over TLS.
struct Session {
    socket: WebSocket<Stream>,
}

impl Session {
    fn open(stream: Stream, protocols: Option<String>) -> Self {
        let port = stream.sock.peer_addr().unwrap().port();
        let url = format!("wss://localhost:{port}/");
        let mut request = url.into_client_request().unwrap();
        if let Some(protocols) = protocols {
            let headers = request.headers_mut();
            headers.insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        }
        // As a page of the server's has it.
        let origin = format!("https://localhost:{port}");
        request
            .headers_mut()
            .insert("Origin", origin.parse().unwrap());
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Self { socket }
    }

    /// A classic session that has heard of this state.
    fn join(stream: Stream, state: i64) -> Self {
        let mut session = Self::open(stream, None);
        session.expect(state);
        session
    }

    /// The next text, or the code by which it ends.
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

    /// Reads until the state is this.
    fn expect(&mut self, state: i64) {
        while Event::read(&self.next().unwrap()) != Event::State(state) {}
    }

    fn plus(&mut self) {
        self.socket.send(Message::text(PLUS)).unwrap();
    }

    /// The next event of `tallyroom.v1` of that type.
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.next().unwrap()).unwrap();
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Reads to the end: whether it is one that TLS was told of.
    fn ends_well(mut self) -> bool {
        while self.socket.read().is_ok() {}
        matches!(self.socket.get_mut().read(&mut [0]), Ok(0))
    }
}

#[test]
fn sessions_count_over_both_versions_and_in_both_dialects() {
    let place = Place::new();
    let server = place.start(&[]);
    let trusted = certificate(&place.cert());
    let shake = |version| {
        let config = trusting(std::slice::from_ref(&trusted), &[version]);
        shake(server.port(), "localhost", config).unwrap()
    };
    let (older, newer) = (shake(&TLS12), shake(&TLS13));
    assert_eq!(
        older.conn.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    assert_eq!(
        newer.conn.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let (mut ann, mut bob) = (Session::join(older, 0), Session::join(newer, 0));
    for state in (1..40).step_by(2) {
        ann.plus();
        ann.expect(state);
        bob.expect(state);
        bob.plus();
        ann.expect(state + 1);
        bob.expect(state + 1);
    }
    let id = Uuid::new_v4();
    let protocols = format!("tallyroom.v1, client.{id}");
    let mut numbered = Session::open(shake(&TLS13), Some(protocols));
    assert_eq!(numbered.event("state")["value"], 40);
    let action = json!({"action": "plus", "n": 1}).to_string();
    numbered.socket.send(Message::text(action)).unwrap();
    assert_eq!(numbered.event("state")["value"], 41);
    ann.expect(41);
}

#[test]
fn the_page_is_served_and_https_is_not_demanded_hereafter() {
    let place = Place::new();
    let server = place.start(&[]);
    let url = format!("open https://127.0.0.1:{}/", server.port());
    assert!(server.log().contains(&url), "{}", server.log());
    let mut config = trusting(&[certificate(&place.cert())], BOTH);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut stream = shake(server.port(), "localhost", config).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let page = get(&mut stream, "/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<title>"));
    assert_eq!(page.header("strict-transport-security"), None);
    // By the same connection, and by one that has not said what it speaks.
    assert_eq!(get(&mut stream, "/style.css").status, 200);
    let mut silent = shake_by(server.port(), &place.cert());
    assert_eq!(silent.conn.alpn_protocol(), None);
    assert_eq!(get(&mut silent, "/api/rooms/main").json()["value"], 0);
}

/// The first words of a client that speaks TLS 1.1 at most.
fn hello_of_tls_1_1() -> Vec<u8> {
    let mut body = vec![0x03, 0x02];
    body.extend([7; 32]);
    // No session; one suite, which TLS 1.2 has, too; no compression.
    body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let len = body.len() as u8;
    let mut hello = vec![0x16, 0x03, 0x01, 0, len + 4, 1, 0, 0, len];
    hello.extend(body);
    hello
}

#[test]
fn who_speaks_something_else_is_cut_and_disturbs_nobody() {
    const ALERT: u8 = 0x15;
    let place = Place::new();
    let server = place.start(&[]);
    let mut session = Session::join(shake_by(server.port(), &place.cert()), 0);
    let log = server.log();
    let plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let spoken = [plain, hello_of_tls_1_1(), vec![0; 64], vec![0xff; 70_000]];
    for (state, words) in (1..).zip(spoken) {
        let mut stream = connect(("127.0.0.1", server.port()));
        // It may be cut before it has said all.
        let _ = stream.write_all(&words);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = ended.map_err(|err| err.kind());
        assert_ne!(
            ended,
            Err(io::ErrorKind::WouldBlock),
            "{state}: it was not cut"
        );
        assert!(
            answer.first().is_none_or(|first| *first == ALERT),
            "{state}: {answer:?}"
        );
        session.plus();
        session.expect(state);
    }
    let mut only_http2 = trusting(&[certificate(&place.cert())], BOTH);
    only_http2.alpn_protocols = vec![b"h2".to_vec()];
    assert!(shake(server.port(), "localhost", only_http2).is_err());
    session.plus();
    session.expect(5);
    assert_eq!(server.log(), log, "it was logged");
}

/// Shakes hands until a server shows that certificate, and gives the connection.
fn await_shown(server: &Server, expected: &CertificateDer<'static>) -> Stream {
    let mut found = None;
    await_that("the new certificate is shown", || {
        let config = trusting(std::slice::from_ref(expected), BOTH);
        found = shake(server.port(), "localhost", config).ok();
        found.is_some()
    });
    let found = found.unwrap();
    assert_eq!(&shown(&found), expected);
    found
}

#[test]
fn new_files_are_shown_to_new_connections_while_open_ones_go_on() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut old = Session::join(shake_by(server.port(), &place.cert()), 0);
    let start = Instant::now();
    let renewed = place.renew();
    let mut new = Session::join(await_shown(&server, &renewed), 0);
    // It is said to take 10 s at most.
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    for state in 1..20 {
        old.plus();
        old.expect(state);
        new.expect(state);
    }
    server.await_log("new connections are shown the new certificate");
    let log = server.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_hangup_shows_new_files_at_once_and_open_connections_go_on() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut session = Session::join(shake_by(server.port(), &place.cert()), 0);
    // They are looked at every 2 s anyway, so one that is faster tells that the signal is heard.
    let mut fastest = Duration::MAX;
    for state in 1..=5 {
        let renewed = place.renew();
        let start = Instant::now();
        server.signal("HUP");
        await_shown(&server, &renewed);
        fastest = fastest.min(start.elapsed());
        session.plus();
        session.expect(state);
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    server.signal("HUP");
    server.await_log("is the one in use");
}

#[test]
fn files_that_cannot_be_used_leave_the_old_certificate_in_use() {
    let place = Place::new();
    let server = place.start(&[]);
    let old = certificate(&place.cert());
    let mut session = Session::join(await_shown(&server, &old), 0);
    let (cert, key) = (
        fs::read(place.cert()).unwrap(),
        fs::read(place.key()).unwrap(),
    );

    fs::write(place.cert(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    server.await_log("stays in use");
    let said = server.log();
    let line = said.lines().find(|line| line.contains("stays in use"));
    let line = line.unwrap().to_owned();
    let file = place.cert().display().to_string();
    assert!(line.contains("ERROR") && line.contains(&file), "{line}");
    await_shown(&server, &old);
    session.plus();
    session.expect(1);

    // Another mistake is said, too; once, at which the first was looked at again in vain.
    fs::remove_file(place.key()).unwrap();
    fs::write(place.cert(), &cert).unwrap();
    let file = place.key().display().to_string();
    server.await_log(&format!("cannot read {file}"));
    await_shown(&server, &old);
    assert_eq!(server.log().matches("stays in use").count(), 2);

    // Who asks is told each time.
    server.signal("HUP");
    await_that("it is said again", || {
        server.log().matches("stays in use").count() == 3
    });

    fs::write(place.key(), &key).unwrap();
    server.signal("HUP");
    server.await_log("is the one in use");
    let renewed = place.renew();
    await_shown(&server, &renewed);
    session.plus();
    session.expect(2);
    let log = server.log();
    for line in String::from_utf8(key).unwrap().lines() {
        assert!(!log.contains(line), "the key is in the log");
    }
}

fn run(mut command: Command) -> Output {
    support::output(command.stdout(Stdio::piped()))
}

#[test]
fn a_certificate_without_its_key_is_wrong_usage_and_so_is_a_key_alone() {
    let by_flag = |flag: &str| command(&[flag, "some.pem"]);
    let by_variable = |name: &str| {
        let mut command = command(&[]);
        command.env(name, "some.pem");
        command
    };
    let with_self_signed = |flag: &str| command(&["--tls-self-signed", flag, "some.pem"]);
    for command in [
        by_flag("--tls-cert"),
        by_flag("--tls-key"),
        by_variable("TALLYROOM_TLS_CERT"),
        by_variable("TALLYROOM_TLS_KEY"),
        with_self_signed("--tls-cert"),
        with_self_signed("--tls-key"),
    ] {
        let said = format!("{command:?}");
        let output = run(command);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}: {stderr}");
        for flag in ["--tls-cert", "--tls-key"] {
            assert!(stderr.contains(flag), "{said}: {flag} is not in {stderr}");
        }
    }
}

#[test]
fn files_that_cannot_be_used_end_the_start_before_a_port_opens() {
    // A port that is taken, so that whoever opened it first would say so.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let foreign = Place::new();
    let foreign_key = fs::read(foreign.key()).unwrap();
    let foreign_cert = fs::read(foreign.cert()).unwrap();
    let spoil = |cert: Option<&[u8]>, key: Option<&[u8]>, named: &[&str]| {
        let place = Place::new();
        for (path, bytes) in [(place.cert(), cert), (place.key(), key)] {
            match bytes {
                Some(b"") => fs::remove_file(path).unwrap(),
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => {}
            }
        }
        let output = run(place.command(&["--listen", &taken]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for name in named {
            assert!(said.contains(name), "{name} is not in {said}");
        }
    };
    let (cert, key) = ("cert.pem", "key.pem");
    // Nothing: the file is missing.
    spoil(Some(b""), None, &[cert, "cannot read"]);
    spoil(None, Some(b""), &[key, "cannot read"]);
    spoil(Some(b"hello"), None, &[cert, "no certificate"]);
    spoil(Some(&foreign_key), None, &[cert, "no certificate"]);
    spoil(Some(pem("CERTIFICATE").as_bytes()), None, &[cert]);
    spoil(None, Some(b"hello"), &[key, "no private key"]);
    spoil(None, Some(&foreign_cert), &[key, "no private key"]);
    let encrypted = pem("ENCRYPTED PRIVATE KEY");
    spoil(None, Some(encrypted.as_bytes()), &[key, "encrypted"]);
    spoil(None, Some(pem("PRIVATE KEY").as_bytes()), &[key]);
    spoil(None, Some(&foreign_key), &[cert, key, "is not that of"]);
    spoil(Some(&vec![b'x'; 1 << 21]), None, &[cert, "1 MiB"]);
}

#[test]
fn keys_are_taken_in_each_of_their_forms() {
    let openssl = |args: &[&str], folder: &Path| {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(folder);
        command.output().is_ok_and(|output| output.status.success())
    };
    let place = Place::empty();
    let folder = place.folder.path();
    if !openssl(&["version"], folder) {
        eprintln!("this machine has no openssl, so this is not tested");
        return;
    }
    let make = "req -x509 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
                -addext basicConstraints=critical,CA:FALSE -out cert.pem -keyout made.pem";
    for (kind, convert, label) in [
        ("-newkey rsa:2048", "rsa -traditional", "RSA PRIVATE KEY"),
        ("-newkey rsa:2048", "pkey", "PRIVATE KEY"),
        (
            "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
            "ec",
            "EC PRIVATE KEY",
        ),
        (
            "-newkey ec -pkeyopt ec_paramgen_curve:P-384",
            "pkey",
            "PRIVATE KEY",
        ),
        ("-newkey ed25519", "pkey", "PRIVATE KEY"),
    ] {
        let make = format!("{make} {kind}");
        let convert = format!("{convert} -in made.pem -out key.pem");
        for step in [make, convert] {
            let args: Vec<&str> = step.split_whitespace().collect();
            assert!(openssl(&args, folder), "openssl {step}");
        }
        let key = fs::read_to_string(place.key()).unwrap();
        assert!(key.contains(&format!("-----BEGIN {label}-----")), "{key}");
        let server = place.start(&[]);
        let mut stream = shake_by(server.port(), &place.cert());
        assert_eq!(get(&mut stream, "/").status, 200);
    }
}

#[test]
fn a_self_signed_certificate_is_written_trusted_and_used_again() {
    let place = Place::empty();
    let start = |by_variable: bool| {
        let mut command = command(&["--listen", "127.0.0.1:0"]);
        match by_variable {
            true => command.env("TALLYROOM_TLS_SELF_SIGNED", "1"),
            false => command.arg("--tls-self-signed"),
        };
        command.current_dir(place.folder.path());
        command
    };
    let (cert, key) = (place.path("localhost.pem"), place.path("localhost-key.pem"));
    let server = Server::spawn(start(false));
    let mode = fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for name in ["localhost", "127.0.0.1", "::1"] {
        let config = trusting(&[certificate(&cert)], BOTH);
        let mut stream = shake(server.port(), name, config).unwrap();
        assert_eq!(get(&mut stream, "/").status, 200, "{name}");
    }
    drop(server);
    let read = || (fs::read(&cert).unwrap(), fs::read(&key).unwrap());
    let written = read();
    let server = Server::spawn(start(true));
    assert_eq!(shown(&shake_by(server.port(), &cert)), certificate(&cert));
    drop(server);
    assert!(read() == written, "they were written again");

    for (missing, there) in [(&cert, &key), (&key, &cert)] {
        let kept = (fs::read(missing).unwrap(), fs::read(there).unwrap());
        fs::remove_file(missing).unwrap();
        let output = run(start(false));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("localhost.pem") && said.contains("localhost-key.pem"),
            "{said}"
        );
        assert!(!missing.exists() && fs::read(there).unwrap() == kept.1);
        fs::write(missing, kept.0).unwrap();
    }
    fs::write(&key, "no key").unwrap();
    let output = run(start(false));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&key).unwrap(), b"no key");
}

#[test]
fn a_self_signed_certificate_is_written_where_the_flags_say() {
    let place = Place::empty();
    let server = place.start(&["--tls-self-signed"]);
    let mut stream = shake_by(server.port(), &place.cert());
    assert_eq!(get(&mut stream, "/").status, 200);
    drop(server);
    // A real certificate is used as it is.
    let real = place.renew();
    let server = place.start(&["--tls-self-signed"]);
    assert_eq!(shown(&shake_by(server.port(), &place.cert())), real);
}

#[test]
fn the_commands_trust_a_certificate_that_they_are_given() {
    let place = Place::empty();
    let mut serve = command(&["--listen", "localhost:0", "--tls-self-signed"]);
    serve.current_dir(place.folder.path());
    let server = Server::spawn(serve);
    let url = format!("https://localhost:{}", server.port());
    let ask = |args: &[&str]| {
        let mut ask = command(args);
        ask.args(["--url", &url]).stdout(Stdio::piped());
        ask.current_dir(place.folder.path());
        ask
    };
    let trusting = |args: &[&str]| {
        let mut ask = ask(args);
        ask.env("SSL_CERT_FILE", "localhost.pem");
        ask
    };
    let output = run(trusting(&["plus", "door", "--by", "3"]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "3\n");
    let mut watch = trusting(&["watch", "door"]).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let told = lines
        .map_while(Result::ok)
        .any(|line| line.contains(r#""value":3"#) || line.contains(r#""state":3"#));
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(told, "it ended without the state");
    let untrusting = run(ask(&["plus", "door", "--timeout", "1s"]));
    let said = String::from_utf8(untrusting.stderr).unwrap();
    assert_eq!(untrusting.status.code(), Some(1), "{said}");
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn a_handshake_that_is_not_finished_is_cut() {
    let place = Place::new();
    let server = place.start(&["--handshake-timeout", "1s"]);
    let mut session = Session::join(shake_by(server.port(), &place.cert()), 0);
    let start = Instant::now();
    let mut silent = connect(("127.0.0.1", server.port()));
    let mut halting = connect(("127.0.0.1", server.port()));
    halting.write_all(&hello_of_tls_1_1()[..20]).unwrap();
    for stream in [&mut silent, &mut halting] {
        let ended = stream.read_to_end(&mut Vec::new());
        let ended = ended.map_err(|err| err.kind());
        assert_ne!(ended, Err(io::ErrorKind::WouldBlock), "it was not cut");
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    // So is one who has agreed on TLS and says nothing further.
    let mut agreed = shake_by(server.port(), &place.cert());
    let mut answer = Vec::new();
    let _ = agreed.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    session.plus();
    session.expect(1);
}

/// What actix has for TLS takes 256 handshakes at a time on a worker, and then lets nobody in.
#[test]
fn many_unfinished_handshakes_keep_nobody_out() {
    let place = Place::new();
    let server = place.start(&["--handshake-timeout", "0", "--workers", "1"]);
    let silent: Vec<TcpStream> = (0..300)
        .map(|_| connect(("127.0.0.1", server.port())))
        .collect();
    let mut session = Session::join(shake_by(server.port(), &place.cert()), 0);
    session.plus();
    session.expect(1);
    drop(silent);
}

#[test]
fn a_stop_tells_every_session_and_waits_for_no_handshake() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let join = || Session::join(shake_by(server.port(), &place.cert()), 0);
    let sessions = [join(), join(), join()];
    let silent = connect(("127.0.0.1", server.port()));
    let mut idle = shake_by(server.port(), &place.cert());
    assert_eq!(get(&mut idle, "/").status, 200);
    let start = Instant::now();
    server.signal("TERM");
    for mut session in sessions {
        let mut next = session.next();
        while next.is_ok() {
            next = session.next();
        }
        assert_eq!(next, Err(Some(1012)));
        assert!(session.ends_well(), "it was cut without a word");
    }
    assert_eq!(server.await_exit().code(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    drop((silent, idle));
}
