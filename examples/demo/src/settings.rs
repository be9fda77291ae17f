//! The settings that all runs of an experiment share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = "settings.json";

/// Two experiments with equal settings give equal results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Folder of IDX files; `None` means the digits that come with the demo.
    pub data: Option<PathBuf>,
    pub data_checksum: u32,
    /// Number of training images.
    pub train: usize,
    pub epochs: usize,
    /// Fraction of wrong labels in the noisy runs.
    pub noise: f64,
    pub batch: usize,
    /// Number of units in each of the two hidden layers.
    pub hidden: usize,
    /// At the first step; it decreases to 0 along a cosine.
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// Weight of the hard label in online label smoothing.
    pub alpha: f64,
    /// Epsilon of label smoothing, and of the first epoch of online label smoothing.
    pub smoothing: f64,
}

impl Settings {
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        fs::write(&path, serde_json::to_string_pretty(self)?).with_context(|| path.display().to_string())
    }

    /// Returns the settings of an earlier experiment in `folder`, if there is one.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let read = || Ok::<_, anyhow::Error>(serde_json::from_str(&fs::read_to_string(&path)?)?);
        read().map(Some).with_context(|| format!("{}: these are not the settings of an experiment", path.display()))
    }

    /// Fails if `self` would not continue what `earlier` began.
    pub fn check_same_as(&self, earlier: &Self) -> Result<()> {
        let (Value::Object(now), Value::Object(then)) = (serde_json::to_value(self)?, serde_json::to_value(earlier)?) else {
            unreachable!("a structure is written as an object")
        };
        for (name, value) in &now {
            if then.get(name) != Some(value) {
                let option = name.replace('_', "-");
                bail!("--resume: {option} is {value} now, but was {} when the experiment began", then[name]);
            }
        }
        Ok(())
    }
}
