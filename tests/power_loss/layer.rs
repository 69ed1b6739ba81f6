//! Starts the program over `layer.c`, which keeps a log of what it asks of its data folder.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::support::{Server, command};

/// What goes wrong; the numbers are those of `layer.c`.
#[derive(Clone, Copy, Debug)]
pub enum Switch {
    SyncFails = 0,
    SyncLies = 1,
    FailsOf = 2,
    Full = 3,
    Failed = 4,
    Die = 5,
    SyncTakes = 6,
    SyncReturnsEarly = 7,
    WriteFails = 8,
    ReadFails = 9,
}

/// A folder that is watched, and the log of what is asked of it.
pub struct Watched {
    folder: TempDir,
    log: PathBuf,
    switches: File,
}

impl Watched {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        let log = folder.path().join("log");
        File::create(&log).unwrap();
        let switches = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(folder.path().join("switches"))
            .unwrap();
        switches.set_len(16).unwrap();
        Self {
            folder,
            log,
            switches,
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The data folder, two below what is there before the program starts.
    pub fn data(&self) -> PathBuf {
        data(&self.root())
    }

    /// Starts the program over the layer.
    pub fn start(&self, flags: &[&str]) -> Server {
        Server::spawn(self.serve(flags))
    }

    /// The program over the layer.
    pub fn serve(&self, flags: &[&str]) -> Command {
        self.set(Switch::Die, 0);
        let mut command = serve(&self.data(), flags);
        command
            .env("LD_PRELOAD", library())
            .env("POWER_LOSS_ROOT", self.root())
            .env("POWER_LOSS_LOG", &self.log)
            .env("POWER_LOSS_SWITCHES", self.folder.path().join("switches"));
        command
    }

    pub fn set(&self, switch: Switch, to: u8) {
        self.switches.write_all_at(&[to], switch as u64).unwrap();
    }

    pub fn get(&self, switch: Switch) -> u8 {
        let mut byte = [0];
        self.switches
            .read_exact_at(&mut byte, switch as u64)
            .unwrap();
        byte[0]
    }

    /// How long the log is now: what was heard before this stands on what is in it.
    pub fn now(&self) -> u64 {
        fs::metadata(&self.log).unwrap().len()
    }

    pub fn log(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap()
    }
}

/// The data folder under a root.
pub fn data(root: &Path) -> PathBuf {
    root.join("new").join("data")
}

/// The program on that folder.
pub fn serve(folder: &Path, flags: &[&str]) -> Command {
    let store = format!("disk:{}", folder.display());
    let mut command = command(&["--listen", "127.0.0.1:0", "--store", &store]);
    command.args(flags);
    command
}

/// The layer, compiled once a run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_loss/layer.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power_loss.so");
        // Another run may be using the last one.
        let new = library.with_extension(format!("{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .args([&new, &source])
            .status();
        assert!(compiled.unwrap().success(), "cc failed");
        fs::rename(&new, &library).unwrap();
        library
    })
}
