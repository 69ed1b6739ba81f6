//! The page and its files: from the binary, or from a folder while somebody designs them.

use std::{fs, io, path::PathBuf};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, EntityTag, Header, IfNoneMatch},
    web::Bytes,
};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use rust_embed::Embed;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// The file that a room's URL shows.
const INDEX: &str = "index.html";

/// Only our own files, no inline script or style, and no frame around us.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

#[derive(Embed)]
#[folder = "static/"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.svg"]
#[exclude = "*/*"]
struct Embedded;

/// Where the page's files come from.
#[derive(Clone, Debug, Default)]
pub enum Page {
    /// From the binary: the counter's page.
    #[default]
    Counter,
    /// From a folder, read at each request.
    Folder(PathBuf),
    /// The page is this HTML, whose scripts and styles may stand in it; the client and what else is a file
    /// comes from the binary.
    Alone(&'static str),
    /// There is none: rooms are for programs.
    None,
}

struct File {
    bytes: Bytes,
    tag: EntityTag,
}

impl Page {
    /// Answers with a file: 304 where the client has it already, 404 where there is none.
    pub fn serve(&self, request: &HttpRequest, name: &str) -> HttpResponse {
        let Some(file) = self.file(name) else {
            return Problem::not_found().to_response();
        };
        let tag = header::ETag(file.tag.clone());
        if has_already(request, &file.tag) {
            return HttpResponse::NotModified().insert_header(tag).finish();
        }
        let mut response = HttpResponse::Ok();
        response.content_type(content_type(name)).insert_header(tag);
        if name.ends_with(".html") {
            response.insert_header((header::CONTENT_SECURITY_POLICY, self.policy(name)));
        }
        response.body(file.bytes)
    }

    /// What a browser lets the page do.
    fn policy(&self, name: &str) -> String {
        match self {
            Self::Alone(html) if name == INDEX => {
                let (scripts, styles) = (hashes(html, "script"), hashes(html, "style"));
                CONTENT_SECURITY_POLICY
                    .replace("script-src 'self'", &format!("script-src 'self'{scripts}"))
                    .replace("style-src 'self'", &format!("style-src 'self'{styles}"))
            }
            _ => CONTENT_SECURITY_POLICY.to_owned(),
        }
    }

    fn file(&self, name: &str) -> Option<File> {
        match self {
            Self::Folder(folder) => {
                let plain = !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
                return plain.then(|| read(folder.join(name)).ok()).flatten();
            }
            Self::Alone(html) if name == INDEX => {
                let hash = Sha256::digest(html);
                return Some(File {
                    bytes: Bytes::from_static(html.as_bytes()),
                    tag: tag_of(&hash),
                });
            }
            Self::None => return None,
            Self::Counter | Self::Alone(_) => {}
        }
        let file = Embedded::get(name)?;
        let hash = file.metadata.sha256_hash();
        Some(File {
            bytes: match file.data {
                std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                std::borrow::Cow::Owned(bytes) => bytes.into(),
            },
            tag: tag_of(&hash),
        })
    }
}

fn tag_of(hash: &[u8]) -> EntityTag {
    let tag = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
    EntityTag::new_strong(tag.collect())
}

/// The sources of what stands within a page's elements of that name, each led by a space (Content Security
/// Policy Level 3, section 2.3.1).
fn hashes(html: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}"), format!("</{element}>"));
    let mut hashes = String::new();
    for part in html.split(&begin).skip(1) {
        let content = part.split_once('>').map_or("", |(_, rest)| rest);
        if let Some((content, _)) = content.split_once(&end)
            && !content.is_empty()
        {
            let hash = BASE64.encode(Sha256::digest(content));
            hashes.push_str(&format!(" 'sha256-{hash}'"));
        }
    }
    hashes
}

/// Reads a file whose tag is its time and size: enough while somebody edits it.
fn read(path: PathBuf) -> io::Result<File> {
    let metadata = fs::metadata(&path)?;
    let modified = metadata.modified()?;
    let since_epoch = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let tag = format!("{:x}-{:x}", since_epoch.as_micros(), metadata.len());
    Ok(File {
        bytes: fs::read(path)?.into(),
        tag: EntityTag::new_weak(tag),
    })
}

/// Whether the client has what that tag stands for.
pub fn has_already(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|other| other.weak_eq(tag)),
        Err(_) => false,
    }
}

fn content_type(name: &str) -> String {
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    match kind.type_() {
        mime_guess::mime::TEXT => format!("{kind}; charset=utf-8"),
        _ => kind.to_string(),
    }
}
