//! One request to a server, whose answer is read as it comes.

use std::{
    io::{self, Write},
    time::Duration,
};

use actix_web::rt::time::timeout;
use awc::{ClientRequest, ClientResponse, error::SendRequestError, http::header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;

use crate::{
    client::{
        Address,
        transport::{self, sentence},
        watched::Ended,
    },
    command::report::{Failure, said},
    config::commands::{Patience, Remote},
};

/// The most that is read of an answer that is not printed as it comes.
const MAX_GATHERED: usize = 64 << 10;

/// A server to be asked.
pub struct Server {
    http: awc::Client,
    ended: Ended,
    address: Address,
    patience: Option<Duration>,
}

/// What is wrong, as the server says it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: Option<String>,
    code: Option<String>,
    line: Option<u64>,
    first: Option<u64>,
}

/// An answer whose status is 2xx.
pub struct Answer<S> {
    response: ClientResponse<S>,
    /// Whether it says itself where it ends.
    delimited: bool,
    ended: Ended,
    address: Address,
    patience: Option<Duration>,
}

impl Server {
    pub fn new(remote: &Remote, patience: &Patience) -> Result<Self, Failure> {
        let ended = Ended::default();
        Ok(Self {
            http: transport::client(remote.url.is_secure(), &ended)?,
            ended,
            address: remote.url.clone(),
            patience: patience.timeout.0,
        })
    }

    pub fn get(&self, path: &str) -> ClientRequest {
        self.http.get(self.address.path(path))
    }

    pub fn post(&self, path: &str) -> ClientRequest {
        self.http.post(self.address.path(path))
    }

    /// Waits for the answer to a request that was begun.
    ///
    /// # Errors
    ///
    /// There is none in time, or its status is none of success.
    pub async fn answer<S>(
        &self,
        answer: impl Future<Output = Result<ClientResponse<S>, SendRequestError>>,
    ) -> Result<Answer<S>, Failure>
    where
        S: Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin,
    {
        let address = &self.address;
        let response = within(self.patience, address, answer)
            .await?
            .map_err(|err| {
                let why = format!("{address}: {}", sentence(&err));
                match err {
                    SendRequestError::Connect(_) | SendRequestError::Url(_) => said(why),
                    _ => Failure::Unanswered(why),
                }
            })?;
        let status = response.status();
        let headers = response.headers();
        let mut answer = Answer {
            delimited: headers.contains_key(header::TRANSFER_ENCODING)
                || headers.contains_key(header::CONTENT_LENGTH),
            response,
            ended: self.ended.clone(),
            address: address.clone(),
            patience: self.patience,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let problem = answer.problem().await;
        let line = problem
            .line
            .map_or_else(String::new, |line| format!("line {line}: "));
        let code = problem
            .code
            .map_or_else(String::new, |code| format!(" ({code})"));
        let said = match problem.detail {
            Some(detail) => format!("{line}{detail}{code}"),
            None => format!("{address}: the server answered with {status}"),
        };
        Err(match problem.first {
            Some(first) => Failure::Gone { said, first },
            None => Failure::Said(said),
        })
    }
}

impl<S> Answer<S>
where
    S: Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin,
{
    /// Copies the answer to standard output, as it comes.
    pub async fn print(mut self) -> Result<(), Failure> {
        while let Some(piece) = self.next().await? {
            io::stdout().lock().write_all(&piece)?;
        }
        io::stdout().lock().flush()?;
        Ok(())
    }

    /// The whole answer, which is short.
    pub async fn read(mut self) -> Result<Vec<u8>, Failure> {
        self.gather().await
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let broken = format!("{}: the connection broke, so this is not all", self.address);
        match within(self.patience, &self.address, self.response.next()).await? {
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(err)) => Err(said(format!("{broken}: {err}"))),
            None if self.delimited && self.ended.is_so() => Err(said(broken)),
            None => Ok(None),
        }
    }

    async fn problem(&mut self) -> Problem {
        let body = self.gather().await.unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }

    async fn gather(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while body.len() < MAX_GATHERED
            && let Some(piece) = self.next().await?
        {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

async fn within<T>(
    patience: Option<Duration>,
    address: &Address,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    let Some(patience) = patience else {
        return Ok(future.await);
    };
    let waited = humantime::format_duration(patience);
    let late = |_| Failure::Unanswered(format!("{address}: no answer within {waited}"));
    timeout(patience, future).await.map_err(late)
}
