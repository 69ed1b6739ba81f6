//! Shows on standard error how far a run is, where that is a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, or nothing.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn new() -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template("{msg:<10} {wide_bar} {pos}/{len}");
        let bar = ProgressBar::with_draw_target(None, target);
        Self {
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
        }
    }

    /// Begins anew, for so many.
    pub fn begin(&self, what: &'static str, of: usize) {
        self.bar.set_message(what);
        self.bar.set_length(of as u64);
        self.bar.set_position(0);
    }

    pub fn reach(&self, count: u64) {
        self.bar.set_position(count);
    }
}

impl Drop for Progress {
    /// Leaves the terminal as it was.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
