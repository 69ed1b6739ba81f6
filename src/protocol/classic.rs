//! The dialect of the well-known counter example, byte for byte: what a client without a
//! subprotocol speaks.
//!
//! Exactly `{"type":"users","count":N}`, `{"type":"state","value":V}` and
//! `{"type":"error","code":"…","message":"…"}`, no more fields.

use serde::Serialize;

use crate::rejection::Rejection;

/// Appends `{"type":"state","value":V}`, where `view` is V as JSON.
pub fn state(view: &[u8], json: &mut Vec<u8>) {
    json.extend_from_slice(br#"{"type":"state","value":"#);
    json.extend_from_slice(view);
    json.push(b'}');
}

/// `{"type":"users","count":N}`
pub fn users(count: usize) -> String {
    format!(r#"{{"type":"users","count":{count}}}"#)
}

/// `{"type":"error","code":"…","message":"…"}`
pub fn error(refused: &Rejection) -> String {
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'a str,
        code: &'a str,
        message: &'a str,
    }
    let error = Error {
        r#type: "error",
        code: &refused.code,
        message: &refused.message,
    };
    serde_json::to_string(&error).expect("three strings are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_well_known_ones_byte_for_byte() {
        let mut json = Vec::new();
        state(b"-7", &mut json);
        assert_eq!(json, br#"{"type":"state","value":-7}"#);
        assert_eq!(users(3), r#"{"type":"users","count":3}"#);
        let refused = Rejection::new("not_json", "say \"plus\"");
        assert_eq!(
            error(&refused),
            r#"{"type":"error","code":"not_json","message":"say \"plus\""}"#
        );
    }
}
