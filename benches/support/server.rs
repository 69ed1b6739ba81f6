//! The program that is measured, and what it takes of the machine.

// Each benchmark is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tallyroom");

/// Killed when it is dropped.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub fn on_disk(folder: &Path) -> Self {
        Self::start(&[
            "--store",
            &format!("disk:{}", folder.join("data").display()),
        ])
    }

    pub fn in_memory() -> Self {
        Self::start(&["--store", "memory"])
    }

    pub fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["--listen", "127.0.0.1:0", "--session-rate", "0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("it ended").unwrap();
            if let Some((_, url)) = line.split_once("open http://127.0.0.1:") {
                break url.split('/').next().unwrap().parse().unwrap();
            }
        };
        // Whatever it says further is somebody's who looks for a fault.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Self { child, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How much processor time its threads have had.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let nanos = tasks.flatten().filter_map(|task| {
            let spent = fs::read_to_string(task.path().join("schedstat")).ok()?;
            spent.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Bytes of memory that it has resident.
    pub fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|kib| kib.trim().strip_suffix(" kB"));
        1024 * kib.unwrap().parse::<usize>().unwrap()
    }

    /// The revision of the room `main`.
    pub fn revision(&self) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request =
            "GET /api/rooms/main HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let state: serde_json::Value = serde_json::from_str(body).unwrap();
        state["rev"].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
