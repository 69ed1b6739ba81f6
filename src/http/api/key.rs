//! `Idempotency-Key`: by which number of which client a request's action goes.

use actix_web::http::header::{HeaderMap, HeaderName};

use crate::{
    ids::{ClientId, MAX_NUMBER},
    protocol::v1,
    rejection::Rejection,
    replica::Number,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The most characters of a key.
const MAX_LEN: usize = 255;

/// Reads the key of a request, if it has one.
///
/// `<uuid>:<n>` is number `n` of that client; any other key is a client of its own, whose number is 1.
///
/// # Errors
///
/// `bad_field`
pub fn number(headers: &HeaderMap) -> Result<Option<Number>, Rejection> {
    let mut keys = headers.get_all(HEADER);
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    match key.to_str() {
        Ok(key) if keys.next().is_none() => parse(key).map(Some),
        _ => Err(bad_key()),
    }
}

fn parse(key: &str) -> Result<Number, Rejection> {
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=MAX_LEN).contains(&key.len()) || !visible {
        return Err(bad_key());
    }
    let numbered = key
        .split_once(':')
        .and_then(|(id, n)| Some((v1::client_id(id).ok()?, n)));
    match numbered {
        Some((client, n)) => {
            let n = parse_number(n).ok_or_else(bad_key)?;
            Ok(Number { client, n })
        }
        None => Ok(Number {
            client: ClientId::of_key(key),
            n: 1,
        }),
    }
}

fn parse_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let n = digits.then(|| text.parse().ok()).flatten();
    n.filter(|n| (1..=MAX_NUMBER).contains(n))
}

fn bad_key() -> Rejection {
    let allowed = format!(
        "given once: <uuid>:<n> with n from 1 to {MAX_NUMBER}, or 1 to {MAX_LEN} visible characters"
    );
    Rejection::bad_field("Idempotency-Key", &allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f9619ff-8b86-d011-b42d-00c04fc964ff";

    #[test]
    fn a_key_is_a_number_of_a_client_or_a_client_of_its_own() {
        let number = parse(&format!("{ID}:17")).unwrap();
        assert_eq!(number.client, v1::client_id(ID).unwrap());
        assert_eq!(number.n, 17);
        for key in ["a", ID, "order:7", &"x".repeat(255)] {
            let number = parse(key).unwrap();
            assert_eq!(number, parse(key).unwrap());
            assert!(number.n == 1 && number.client.is_key(), "{key}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let numbers = [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1 ",
            "x",
            "9007199254740992",
            "1:2",
        ];
        for n in numbers {
            assert!(parse(&format!("{ID}:{n}")).is_err(), "{n}");
        }
        for key in ["", "a b", "é", "a\n", &"x".repeat(256)] {
            assert!(parse(key).is_err(), "{key}");
        }
    }
}
