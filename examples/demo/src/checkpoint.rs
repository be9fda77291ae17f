//! Runs on disk: `NAME.partial/` while a run is in progress, `NAME/` once it is finished.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, safetensors};
use serde::{Deserialize, Serialize};

use crate::loss::Run;
use crate::metrics::Predictions;
use crate::training::{Epoch, Training};

const TENSORS: &str = "network.safetensors";
const CRITERION: &str = "criterion.safetensors";
const PROGRESS: &str = "progress.json";
const RESULT: &str = "result.json";
const PREDICTIONS: &str = "predictions.safetensors";

/// The results of a finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    pub result: RunResult,
    /// Of the test images.
    pub predictions: Predictions,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    pub run: Run,
    pub history: Vec<Epoch>,
    /// One row per class.
    pub soft_labels: Vec<Vec<f32>>,
}

/// The folder with the runs of an experiment.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    pub fn open(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder })
    }

    /// Removes the runs of an earlier experiment, and nothing else.
    pub fn clear(&self, runs: impl IntoIterator<Item = Run>) -> Result<()> {
        for run in runs {
            for ending in ["", ".new", ".partial", ".partial.new"] {
                remove(&self.path(run, ending))?;
            }
        }
        Ok(())
    }

    fn path(&self, run: Run, ending: &str) -> PathBuf {
        self.folder.join(run.file_name() + ending)
    }

    /// Saves a run that is in progress.
    pub fn save_partial(&self, run: Run, training: &Training) -> Result<()> {
        self.replace(&self.path(run, ".partial"), |folder| {
            let tensors: HashMap<_, _> = training.network.tensors().chain(training.optimiser.tensors()).collect();
            safetensors::save(&tensors, folder.join(TENSORS))?;
            training.criterion.save(folder.join(CRITERION))?;
            // Written last: a folder with this file is complete.
            fs::write(folder.join(PROGRESS), serde_json::to_vec(&training.progress)?)?;
            Ok(())
        })
    }

    /// Lets `training` continue from a saved state; returns whether there was one.
    pub fn load_partial(&self, run: Run, training: &mut Training) -> Result<bool> {
        // If the old folder was removed but the new one not yet renamed, the new one is used.
        let candidates = [".partial", ".partial.new"].map(|ending| self.path(run, ending));
        let Some(folder) = candidates.iter().find(|folder| folder.join(PROGRESS).exists()) else {
            return Ok(false);
        };
        let mut load = || {
            let tensors = safetensors::load(folder.join(TENSORS), &Device::Cpu)?;
            training.network.load(&tensors)?;
            training.optimiser.load(&tensors)?;
            training.criterion.load(folder.join(CRITERION))?;
            training.set_progress(serde_json::from_slice(&fs::read(folder.join(PROGRESS))?)?);
            Ok::<_, anyhow::Error>(true)
        };
        load().with_context(|| format!("{}: this run cannot be resumed", folder.display()))
    }

    pub fn save_finished(&self, finished: &Finished) -> Result<()> {
        let run = finished.result.run;
        self.replace(&self.path(run, ""), |folder| {
            let predictions = &finished.predictions;
            let shape = (predictions.rows().len(), predictions.classes);
            let tensor = Tensor::from_slice(&predictions.probabilities, shape, &Device::Cpu)?;
            tensor.save_safetensors("probabilities", folder.join(PREDICTIONS))?;
            fs::write(folder.join(RESULT), serde_json::to_vec(&finished.result)?)?;
            Ok(())
        })?;
        remove(&self.path(run, ".partial"))
    }

    pub fn load_finished(&self, run: Run) -> Result<Option<Finished>> {
        let folder = self.path(run, "");
        if !folder.join(RESULT).exists() {
            return Ok(None);
        }
        let load = || {
            let result: RunResult = serde_json::from_slice(&fs::read(folder.join(RESULT))?)?;
            let tensors = safetensors::load(folder.join(PREDICTIONS), &Device::Cpu)?;
            let tensor = tensors.get("probabilities").context("there are no probabilities in it")?;
            let (_, classes) = tensor.dims2()?;
            let probabilities = tensor.flatten_all()?.to_vec1()?;
            Ok::<_, anyhow::Error>(Some(Finished { result, predictions: Predictions { probabilities, classes } }))
        };
        load().with_context(|| format!("{}: this finished run cannot be read", folder.display()))
    }

    /// Fills a new folder, then replaces `folder` by it.
    fn replace(&self, folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mut name = folder.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let write = || {
            remove(&new)?;
            fs::create_dir_all(&new)?;
            fill(&new)?;
            remove(folder)?;
            Ok::<_, anyhow::Error>(fs::rename(&new, folder)?)
        };
        write().with_context(|| folder.display().to_string())
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| folder.display().to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Split};
    use crate::loss::{Labels, Loss};
    use crate::settings::Settings;

    fn train(training: &mut Training, steps: usize) {
        for _ in 0..steps {
            training.step().unwrap();
        }
    }

    /// The run is interrupted in the middle of an epoch, when the criterion has the statistics of half of it.
    #[test]
    fn a_resumed_run_equals_one_that_never_stopped() {
        let data = Dataset::read(None).unwrap();
        let settings = Settings {
            data: None,
            data_checksum: 0,
            train: 200,
            epochs: 4,
            noise: 0.4,
            batch: 32,
            hidden: 24,
            learning_rate: 0.05,
            weight_decay: 1e-3,
            alpha: 0.5,
            smoothing: 0.1,
        };
        let split = Split::draw(&data, 7, settings.train);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        for loss in Loss::ALL {
            let run = Run { loss, labels: Labels::Noisy, seed: 7 };
            let new = || Training::new(run, &split, 10, &settings).unwrap();
            // Seven batches per epoch.
            let mut whole = new();
            train(&mut whole, 28);
            assert!(whole.is_finished());

            let mut first = new();
            train(&mut first, 17);
            store.save_partial(run, &first).unwrap();
            let mut second = new();
            assert!(store.load_partial(run, &mut second).unwrap());
            assert_eq!((second.progress.epoch, second.progress.batch), (2, 3));
            train(&mut second, 11);

            assert_eq!(second.progress, whole.progress);
            assert_eq!(second.soft_labels(), whole.soft_labels());
            assert_eq!(second.test_predictions().unwrap().probabilities, whole.test_predictions().unwrap().probabilities);
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        let run = Run { loss: Loss::CrossEntropy, labels: Labels::Clean, seed: 0 };
        fs::create_dir(store.path(run, "")).unwrap();
        fs::write(store.path(run, "").join(RESULT), "{").unwrap();
        let complaint = format!("{:#}", store.load_finished(run).unwrap_err());
        assert!(complaint.contains("clean-cross-entropy-seed0"), "{complaint}");
    }
}
