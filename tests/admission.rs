//! Who may: pages of other sites and foreign names for this machine are kept out.

mod support;

use support::{
    Server,
    http::{handshake, request},
};

/// The status of a handshake with this `Host` and this `Origin`.
fn status(server: &Server, host: &str, origin: Option<&str>) -> u16 {
    let host = format!("Host: {host}");
    let origin = origin.map(|origin| format!("Origin: {origin}"));
    let headers = [Some(host.as_str()), origin.as_deref()];
    let headers: Vec<&str> = headers.into_iter().flatten().collect();
    handshake(server.port(), "/", &headers).status
}

#[test]
fn a_socket_comes_from_the_same_origin_or_from_no_page_at_all() {
    let server = Server::start(&[]);
    let port = server.port();
    let host = format!("localhost:{port}");
    let table = [
        (None, 101),
        (Some(format!("http://localhost:{port}")), 101),
        (Some(format!("http://LOCALHOST:{port}")), 101),
        (Some(format!("https://localhost:{port}")), 101),
        (Some("http://localhost".to_owned()), 403),
        (Some(format!("http://127.0.0.1:{port}")), 403),
        (Some(format!("http://evil.test:{port}")), 403),
        (Some(format!("http://localhost.evil.test:{port}")), 403),
        (Some(format!("http://localhost:{port}.evil.test")), 403),
        (Some(format!("http://localhost:{port}@evil.test")), 403),
        (Some(format!("http://evil.test#localhost:{port}")), 403),
        (Some(format!("http://localhost:{port}/")), 403),
        (Some("https://evil.test".to_owned()), 403),
        (Some("file://".to_owned()), 403),
        (Some("null".to_owned()), 403),
        (Some("*".to_owned()), 403),
        (Some(String::new()), 403),
    ];
    for (origin, expected) in table {
        let found = status(&server, &host, origin.as_deref());
        assert_eq!(found, expected, "{origin:?}");
    }
    let foreign = handshake(port, "/", &["Origin: http://evil.test"]);
    foreign.assert_problem(403, "forbidden");
    let bytes = status(&server, &host, Some("http://\u{e9}.test"));
    assert!((400..404).contains(&bytes), "{bytes}");
    let twice = ["Origin: http://localhost", "Origin: http://evil.test"];
    assert_eq!(handshake(port, "/", &twice).status, 400);
}

#[test]
fn origins_that_are_allowed_may_open_sockets() {
    let evil = "https://evil.test";
    for (allow, origin, expected) in [
        (&["null"][..], "null", 101),
        (&["null"], evil, 403),
        (&["*"], "null", 101),
        (&["*"], evil, 101),
        (&["https://a.test"], "https://a.test", 101),
        (&["https://a.test"], "https://A.test:443", 101),
        (&["https://a.test"], "http://a.test", 403),
        (&["https://a.test"], "https://a.test:444", 403),
        (&["https://a.test"], "https://b.a.test", 403),
        (&["https://a.test"], "null", 403),
        (&["https://a.test", "null"], "null", 101),
        (
            &["https://a.test,https://b.test:81"],
            "https://b.test:81",
            101,
        ),
    ] {
        let args: Vec<&str> = allow
            .iter()
            .flat_map(|allow| ["--allow-origin", allow])
            .collect();
        let server = Server::start(&args);
        assert_eq!(
            status(&server, "localhost", Some(origin)),
            expected,
            "{allow:?} {origin}"
        );
        // One's own stays allowed.
        assert_eq!(status(&server, "localhost", Some("http://localhost")), 101);
    }
}

#[test]
fn a_listener_on_loopback_answers_to_names_of_loopback_on_every_path() {
    let server = Server::start(&[]);
    let port = server.port();
    for host in [
        "localhost",
        "localhost:1",
        "LocalHost:6789",
        "a.localhost",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]",
        "[::1]:6789",
    ] {
        assert_eq!(status(&server, host, None), 101, "{host}");
        assert_eq!(
            request(port, "GET", "/", &[&format!("Host: {host}")]).status,
            200,
            "{host}"
        );
    }
    for host in [
        "evil.test",
        "evil.test:6789",
        "localhost.evil.test",
        "evillocalhost",
        "127.0.0.1.evil.test",
        "10.0.0.1",
        "[::2]",
        "0.0.0.0",
        "",
    ] {
        let header = format!("Host: {host}");
        for (method, path) in [
            ("GET", "/"),
            ("HEAD", "/"),
            ("GET", "/r/room"),
            ("GET", "/client.js"),
            ("GET", "/no/such/path"),
            ("POST", "/"),
            ("DELETE", "/no/such/path"),
        ] {
            let answer = request(port, method, path, &[&header]);
            // An empty one may be no request at all.
            let refused = if host.is_empty() {
                400..=421
            } else {
                421..=421
            };
            assert!(
                refused.contains(&answer.status),
                "{host:?} {method} {path}: {answer:?}"
            );
            if method == "GET" && !host.is_empty() {
                answer.assert_problem(421, "wrong_host");
            }
        }
        let refused = status(&server, host, None);
        assert!(matches!(refused, 400 | 421), "{host:?} {refused}");
    }
    let twice = ["Host: localhost", "Host: evil.test"];
    assert!(matches!(
        request(port, "GET", "/", &twice).status,
        400 | 421
    ));
}

#[test]
fn names_that_are_allowed_reach_a_listener_on_loopback() {
    let server = Server::start(&["--allow-host", "a.test", "--allow-host", "b.test:81"]);
    for (host, expected) in [
        ("a.test", 101),
        ("A.TEST:8080", 101),
        ("b.test:81", 101),
        ("b.test", 421),
        ("b.test:82", 421),
        ("c.test", 421),
        ("localhost", 101),
    ] {
        assert_eq!(status(&server, host, None), expected, "{host}");
    }
    // By an allowed name, its own origin is the same origin.
    assert_eq!(status(&server, "a.test", Some("https://a.test")), 101);
    assert_eq!(status(&server, "a.test", Some("https://c.test")), 403);
}

#[test]
fn beyond_loopback_any_name_will_do_and_the_log_warns() {
    let server = Server::start_on("0.0.0.0:0", &[]);
    let log = server.log();
    assert!(
        log.contains(&format!("http://localhost:{}/", server.port())),
        "{log}"
    );
    for host in ["tally.test", "192.0.2.7:80", "localhost"] {
        assert_eq!(status(&server, host, None), 101, "{host}");
        let own = format!("http://{host}");
        assert_eq!(status(&server, host, Some(&own)), 101, "{host}");
        assert_eq!(
            status(&server, host, Some("http://evil.test")),
            403,
            "{host}"
        );
    }
    support::await_that("the log warns", || server.log().contains("WARN"));
    assert!(!Server::start(&[]).log().contains("WARN"));
}
