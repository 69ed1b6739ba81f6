//! The page and its files: from the binary, or from a folder while somebody designs them.

use std::{fs, io, path::PathBuf};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, EntityTag, Header, IfNoneMatch},
    web::Bytes,
};
use rust_embed::Embed;

use super::problem::Problem;

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
pub struct Page {
    /// Read at each request; `None`: the files in the binary.
    pub folder: Option<PathBuf>,
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
            response.insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY));
        }
        response.body(file.bytes)
    }

    fn file(&self, name: &str) -> Option<File> {
        if let Some(folder) = &self.folder {
            let plain = !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
            return plain.then(|| read(folder.join(name)).ok()).flatten();
        }
        let file = Embedded::get(name)?;
        let hash = file.metadata.sha256_hash();
        let tag = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(File {
            bytes: match file.data {
                std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                std::borrow::Cow::Owned(bytes) => bytes.into(),
            },
            tag: EntityTag::new_strong(tag),
        })
    }
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
