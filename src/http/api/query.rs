//! The parameters of a request's query.

use actix_web::{HttpRequest, web};

use crate::{ids::MAX_NUMBER, rejection::Rejection};

/// The parameters, in their order.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// `bad_field` where they are no parameters.
    pub fn of(request: &HttpRequest) -> Result<Self, Rejection> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let bad = |_| Rejection::bad_field("query", "made of name=value, joined by &");
        pairs.map(|pairs| Self(pairs.into_inner())).map_err(bad)
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| value.as_str())
    }

    /// A whole number from `least` to 2^53 − 1, if it is there.
    ///
    /// # Errors
    ///
    /// `bad_field`
    pub fn number(&self, name: &str, least: u64) -> Result<Option<u64>, Rejection> {
        let mut values = self.all(name);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| value.parse().ok()).flatten();
        let fits = number.filter(|number| (least..=MAX_NUMBER).contains(number));
        match fits {
            Some(number) if values.next().is_none() => Ok(Some(number)),
            _ => {
                let allowed = format!("a whole number from {least} to {MAX_NUMBER}, given once");
                Err(Rejection::bad_field(name, &allowed))
            }
        }
    }
}
