//! The progress of the experiment: bars on a terminal, otherwise one line per run.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::loss::Run;
use crate::settings::Settings;
use crate::training::Epoch;

pub struct Display {
    bars: MultiProgress,
    /// Counts the epochs of all runs.
    total: ProgressBar,
    is_terminal: bool,
    runs: usize,
    finished: AtomicUsize,
    noise: f64,
    epochs: usize,
}

impl Display {
    pub fn new(runs: usize, settings: &Settings) -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new((runs * settings.epochs) as u64));
        let template = "{bar:32} {percent:>3} %  {msg}  {elapsed} gone, {eta} left";
        total.set_style(ProgressStyle::with_template(template).expect("a valid template").progress_chars("━╸─"));
        total.enable_steady_tick(Duration::from_millis(200));
        let display = Self {
            bars,
            total,
            is_terminal: std::io::stderr().is_terminal(),
            runs,
            finished: AtomicUsize::new(0),
            noise: settings.noise,
            epochs: settings.epochs,
        };
        display.count();
        display
    }

    fn count(&self) -> usize {
        let finished = self.finished.load(Ordering::Relaxed);
        self.total.set_message(format!("{finished} of {} runs", self.runs));
        finished
    }

    /// Counts epochs that were completed earlier, which do not affect the estimate of the remaining time.
    pub fn skip(&self, epochs: usize) {
        self.total.inc(epochs as u64);
        self.total.reset_eta();
    }

    pub fn skip_run(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.count();
        self.skip(self.epochs);
    }

    /// Adds a line for a run.
    pub fn begin(&self, run: Run) -> ProgressBar {
        let bar = self.bars.insert_before(&self.total, ProgressBar::no_length());
        bar.set_style(ProgressStyle::with_template("{prefix} {msg}").expect("a valid template"));
        bar.set_prefix(format!("{:<18} {:<22} seed {}", run.labels.name(self.noise), run.loss.name(), run.seed));
        bar
    }

    pub fn epoch(&self, bar: &ProgressBar, number: usize, epoch: &Epoch) {
        self.total.inc(1);
        bar.set_message(format!(
            "  epoch {number:>3}/{}  loss {:.3}  test accuracy {:5.1} %",
            self.epochs,
            epoch.loss,
            100.0 * epoch.test_accuracy
        ));
    }

    pub fn end(&self, bar: &ProgressBar, run: Run, last: &Epoch) {
        self.bars.remove(bar);
        self.finished.fetch_add(1, Ordering::Relaxed);
        let finished = self.count();
        if !self.is_terminal {
            eprintln!(
                "run {finished:>2} of {}: {:<18} {:<22} seed {}  loss {:.3}  test accuracy {:5.1} %",
                self.runs,
                run.labels.name(self.noise),
                run.loss.name(),
                run.seed,
                last.loss,
                100.0 * last.test_accuracy
            );
        }
    }

    /// Removes the bars.
    pub fn clear(&self) {
        self.total.finish_and_clear();
        // If standard error is closed, there is nothing to remove.
        let _ = self.bars.clear();
    }
}
