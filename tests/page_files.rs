//! The page and its files as HTTP has them.

mod support;

use std::{fs, path::PathBuf};

use support::{
    Server,
    http::{Answer, get, request},
};

fn assert_headers(answer: &Answer) {
    assert_eq!(
        answer.header("x-content-type-options"),
        Some("nosniff"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("cache-control"),
        Some("no-cache"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("referrer-policy"),
        Some("no-referrer"),
        "{answer:?}"
    );
}

#[test]
fn the_page_is_at_the_root_and_in_every_room() {
    let server = Server::start(&[]);
    let root = get(server.port(), "/");
    assert_eq!(root.status, 200);
    assert_eq!(
        root.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_headers(&root);
    let policy = root.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(
        String::from_utf8(root.body.clone())
            .unwrap()
            .contains("<html")
    );
    let room = get(server.port(), "/r/x");
    assert_eq!((room.status, &room.body), (200, &root.body));
    assert_eq!(room.header("etag"), root.header("etag"));
}

#[test]
fn every_file_that_the_page_names_is_there_with_its_type() {
    let server = Server::start(&[]);
    for (path, kind) in [
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(server.port(), path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
        assert_headers(&answer);
    }
}

#[test]
fn what_a_browser_has_already_is_not_sent_again() {
    let server = Server::start(&[]);
    for path in ["/", "/r/x", "/client.js"] {
        let tag = get(server.port(), path).header("etag").unwrap().to_owned();
        let ask = |tags: &str| {
            let header = format!("If-None-Match: {tags}");
            request(server.port(), "GET", path, &[&header])
        };
        for tags in [&tag, "*", &format!("\"other\", W/{tag}")] {
            let answer = ask(tags);
            assert_eq!(answer.status, 304, "{path} {tags}");
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
            assert_headers(&answer);
        }
        for tags in ["\"other\"", "", "garbage"] {
            assert_eq!(ask(tags).status, 200, "{path} {tags}");
        }
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start(&[]);
    for path in ["/", "/r/x", "/style.css", "/no-such-file"] {
        let (get, head) = (
            get(server.port(), path),
            request(server.port(), "HEAD", path, &[]),
        );
        assert_eq!(head.status, get.status, "{path}");
        let but_date = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.retain(|(name, _)| name != "date");
            headers.sort();
            headers
        };
        assert_eq!(but_date(&head), but_date(&get), "{path}");
    }
    // Nothing follows the head on the same connection but the next answer.
    let twice =
        b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /none HTTP/1.1\r\nHost: localhost\r\n\
                  Connection: close\r\n\r\n";
    let mut stream = support::connect(("127.0.0.1", server.port()));
    std::io::Write::write_all(&mut stream, twice).unwrap();
    let mut answers = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answers).unwrap();
    let second = answers.split_once("\r\n\r\n").unwrap().1;
    assert!(second.starts_with("HTTP/1.1 404 "), "{second}");
}

#[test]
fn other_methods_are_not_allowed() {
    let server = Server::start(&[]);
    for path in ["/", "/r/x", "/client.js"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let answer = request(server.port(), method, path, &["Content-Length: 0"]);
            answer.assert_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
            assert_headers(&answer);
        }
    }
}

#[test]
fn what_is_not_there_is_a_problem_document() {
    let server = Server::start(&[]);
    for path in [
        "/none",
        "/none.js",
        "/a/b/c",
        "/README.md",
        "/preview.png.js",
        "/static/page.js",
    ] {
        let answer = get(server.port(), path);
        answer.assert_problem(404, "not_found");
        assert_headers(&answer);
        assert_eq!(answer.json()["title"], "Not Found");
    }
}

const ESCAPES: [&str; 16] = [
    "/../Cargo.toml",
    "/..%2fCargo.toml",
    "/..%2FCargo.toml",
    "/%2e%2e/Cargo.toml",
    "/%2e%2e%2fCargo.toml",
    "/.%2e/Cargo.toml",
    "/..%5cCargo.toml",
    "/..\\Cargo.toml",
    "/%252e%252e%252fCargo.toml",
    "/r/../../Cargo.toml",
    "/r/..%2f..%2fCargo.toml",
    "//etc/passwd",
    "/%2fetc%2fpasswd",
    "/secret.txt%00.html",
    "/.hidden",
    "/%2e/secret/inner.txt",
];

#[test]
fn no_path_leads_out_of_the_files() {
    let folder = Folder::new("escapes");
    folder.write("index.html", "<html>inside</html>");
    fs::write(folder.0.parent().unwrap().join("Cargo.toml"), "secret").unwrap();
    folder.write(".hidden", "secret");
    fs::create_dir_all(folder.0.join("secret")).unwrap();
    folder.write("secret/inner.txt", "secret");
    let from_binary = Server::start(&[]);
    let from_folder = Server::start(&["--static", folder.0.to_str().unwrap()]);
    for server in [&from_binary, &from_folder] {
        for path in ESCAPES {
            let answer = get(server.port(), path);
            assert_eq!(answer.status / 100, 4, "{path}: {answer:?}");
            let body = String::from_utf8_lossy(&answer.body);
            assert!(
                !body.contains("secret\n") && !body.contains("root:"),
                "{path}: {body}"
            );
        }
        for path in ["/secret", "/secret/", "/secret/inner.txt", "/."] {
            assert_eq!(get(server.port(), path).status, 404, "{path}");
        }
    }
}

#[test]
fn files_from_a_folder_are_read_at_each_request() {
    let folder = Folder::new("folder");
    folder.write("index.html", "<html>one</html>");
    let server = Server::start(&["--static", folder.0.to_str().unwrap()]);
    let first = get(server.port(), "/r/x");
    assert_eq!(first.body, b"<html>one</html>");
    assert_headers(&first);
    assert!(first.header("content-security-policy").is_some());
    let tag = format!("If-None-Match: {}", first.header("etag").unwrap());
    assert_eq!(request(server.port(), "GET", "/", &[&tag]).status, 304);
    folder.write("index.html", "<html>another</html>");
    let second = request(server.port(), "GET", "/", &[&tag]);
    assert_eq!(
        (second.status, &second.body[..]),
        (200, &b"<html>another</html>"[..])
    );
    get(server.port(), "/client.js").assert_problem(404, "not_found");
    folder.write("client.js", "// here");
    assert_eq!(get(server.port(), "/client.js").body, b"// here");
}

/// A folder that is there for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(name)
            .join("static");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}
