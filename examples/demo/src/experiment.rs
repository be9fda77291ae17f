//! All runs of an experiment, several at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::checkpoint::{Finished, RunResult, Store};
use crate::data::{Dataset, Split};
use crate::loss::Run;
use crate::progress::Display;
use crate::settings::Settings;
use crate::training::Training;

/// In case the program is killed without a chance to save.
const SAVE_EVERY: Duration = Duration::from_secs(20);

pub struct Experiment<'a> {
    pub data: &'a Dataset,
    pub settings: &'a Settings,
    pub store: &'a Store,
    pub display: &'a Display,
    /// Set to stop after the current batches.
    pub interrupted: &'a AtomicBool,
}

impl Experiment<'_> {
    /// Executes all runs that are not finished yet. Returns `None` if it was interrupted.
    pub fn run(&self, runs: &[Run], threads: usize) -> Result<Option<Vec<Finished>>> {
        let next = AtomicUsize::new(0);
        let finished = Mutex::new(vec![None; runs.len()]);
        let work = || -> Result<()> {
            // One thread per run, because its matrices are too small to be divided among threads.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
            while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(result) = pool.install(|| self.run_one(*run)).inspect_err(|_| self.stop())? else { break };
                let mut finished = finished.lock().expect("no worker panics while it holds the lock");
                let place = runs.iter().position(|other| other == run).context("a run of the list")?;
                finished[place] = Some(result);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(runs.len())).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                worker.join().expect("a worker returns its errors")?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(finished.into_inner().expect("no worker panics while it holds the lock").into_iter().collect())
    }

    fn stop(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    fn run_one(&self, run: Run) -> Result<Option<Finished>> {
        if let Some(finished) = self.store.load_finished(run)? {
            self.display.skip_run();
            return Ok(Some(finished));
        }
        let split = Split::draw(self.data, run.seed, self.settings.train);
        let mut training = Training::new(run, &split, self.data.classes(), self.settings)?;
        if self.store.load_partial(run, &mut training)? {
            self.display.skip(training.progress.epoch);
        }
        let bar = self.display.begin(run);
        let mut saved = Instant::now();
        while !training.is_finished() {
            let interrupted = self.interrupted.load(Ordering::Relaxed);
            if interrupted || saved.elapsed() > SAVE_EVERY {
                self.store.save_partial(run, &training)?;
                saved = Instant::now();
            }
            if interrupted {
                return Ok(None);
            }
            training.step()?;
            let progress = &training.progress;
            if let (0, Some(epoch)) = (progress.batch, progress.history.last()) {
                self.display.epoch(&bar, progress.epoch, epoch);
            }
        }
        let finished = Finished {
            predictions: training.test_predictions()?,
            result: RunResult { run, soft_labels: training.soft_labels(), history: training.progress.history },
        };
        self.store.save_finished(&finished)?;
        let last = finished.result.history.last().context("a run without epochs")?;
        self.display.end(&bar, run, last);
        Ok(Some(finished))
    }
}
