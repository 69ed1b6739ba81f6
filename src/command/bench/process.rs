//! What the kernel says of the server's process: the time that its threads ran, and its memory. Linux only.

use std::{collections::HashMap, fs, io, path::PathBuf, time::Duration};

/// A process of this machine.
pub struct Process {
    folder: PathBuf,
}

/// What it had used at one time.
#[derive(Clone, Debug)]
pub struct Usage {
    /// For how long each thread had run, by its id.
    threads: HashMap<String, Duration>,
    pub resident_bytes: u64,
}

impl Process {
    /// Finds a process that can be measured.
    ///
    /// # Errors
    ///
    /// A sentence that says why it cannot be.
    pub fn find(pid: usize) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("--pid can only be measured on Linux".to_owned());
        }
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let process = Self { folder };
        let usage = process.usage();
        usage.map_err(|err| format!("the process {pid} cannot be measured: {err}"))?;
        Ok(process)
    }

    /// # Errors
    ///
    /// The process has ended, or may not be read.
    pub fn usage(&self) -> io::Result<Usage> {
        let mut threads = HashMap::new();
        for thread in fs::read_dir(self.folder.join("task"))? {
            let thread = thread?;
            // One that has ended meanwhile is left out.
            if let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) {
                let id = thread.file_name().to_string_lossy().into_owned();
                threads.insert(id, run_time(&text).ok_or_else(unreadable)?);
            }
        }
        if threads.is_empty() {
            return Err(unreadable());
        }
        let status = fs::read_to_string(self.folder.join("status"))?;
        Ok(Usage {
            threads,
            resident_bytes: resident(&status).ok_or_else(unreadable)?,
        })
    }
}

impl Usage {
    /// For how long all threads together have run since an earlier time. What one did that has ended is not known.
    pub fn cpu_since(&self, earlier: &Self) -> Duration {
        let since = |(id, ran): (&String, &Duration)| {
            let before = earlier.threads.get(id).copied().unwrap_or_default();
            ran.saturating_sub(before)
        };
        self.threads.iter().map(since).sum()
    }
}

/// The first number of `schedstat`: nanoseconds.
fn run_time(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_whitespace().next()?;
    Some(Duration::from_nanos(nanoseconds.parse().ok()?))
}

fn resident(status: &str) -> Option<u64> {
    let rest = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn unreadable() -> io::Error {
    io::Error::other("the kernel does not tell its threads' run time and memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(threads: &[(&str, u64)]) -> Usage {
        let threads = threads
            .iter()
            .map(|(id, millis)| ((*id).to_owned(), Duration::from_millis(*millis)));
        Usage {
            threads: threads.collect(),
            resident_bytes: 0,
        }
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(
            run_time("1234567 89 3\n"),
            Some(Duration::from_nanos(1_234_567))
        );
        assert_eq!(run_time(""), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn threads_come_and_go() {
        let before = usage(&[("1", 100), ("2", 50)]);
        let after = usage(&[("1", 130), ("3", 7)]);
        assert_eq!(after.cpu_since(&before), Duration::from_millis(37));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_and_no_other() {
        let own = Process::find(std::process::id() as usize).unwrap();
        let before = own.usage().unwrap();
        while own.usage().unwrap().cpu_since(&before).is_zero() {}
        assert!(before.resident_bytes > 0);
        let why = Process::find(i32::MAX as usize).err().unwrap();
        assert!(why.contains("2147483647"), "{why}");
    }
}
