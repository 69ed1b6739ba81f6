//! What stands behind flags: sizes, durations and numbers, as they are written. 0 is none.

use std::{fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;

/// A number of bytes; `None` is written 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub Option<usize>);

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "allowed is a size such as 65536, 64KiB or 1MiB; 0: no limit";
        let ByteSize(bytes) = text.parse().map_err(|_| ALLOWED)?;
        let bytes = usize::try_from(bytes).map_err(|_| ALLOWED)?;
        Ok(Self(Some(bytes).filter(|bytes| *bytes > 0)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.unwrap_or(0);
        match bytes {
            0 => f.write_str("0"),
            bytes if bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

/// A duration; `None` is written 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Option<Duration>);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "allowed is a duration such as 200ms, 30s or 12h; 0: no limit";
        /// Times further off than this cannot be reckoned with everywhere.
        const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let span = humantime::parse_duration(text).map_err(|_| ALLOWED)?;
        Ok(Self(Some(span.min(MAX)).filter(|span| !span.is_zero())))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(span) => humantime::format_duration(span).fmt(f),
        }
    }
}

/// A number of things; `None` is written 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub Option<u32>);

impl FromStr for Count {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count: u32 = text
            .parse()
            .map_err(|_| "allowed is a whole number up to 4294967295; 0: no limit")?;
        Ok(Self(Some(count).filter(|count| *count > 0)))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.unwrap_or(0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_back_as_they_are_written() {
        for size in ["0", "1", "1000", "64KiB", "16MiB"] {
            assert_eq!(size.parse::<Size>().unwrap().to_string(), size);
        }
        for span in ["0", "200ms", "30s", "12h"] {
            assert_eq!(span.parse::<Span>().unwrap().to_string(), span);
        }
    }
}
