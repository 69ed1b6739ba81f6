//! How a command tells what it found, or why it failed.

use std::io::{self, Write};

use crate::client::{BuildError, TlsError};

/// Why a command did not do what it should; its text is a sentence for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    #[error("{0}")]
    Said(String),
    /// What is asked for is no longer kept; what is, begins at this revision.
    #[error("{said}")]
    Gone { said: String, first: u64 },
    /// A request was sent, and nobody knows what came of it.
    #[error("{0}")]
    Unanswered(String),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Of standard input or output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub fn said(sentence: impl Into<String>) -> Failure {
    Failure::Said(sentence.into())
}

/// Prints a line on standard output, at once.
pub fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
