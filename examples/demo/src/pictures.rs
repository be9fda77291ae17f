//! The pictures of an experiment.

mod canvas;
mod colours;
mod curves;
mod overview;
mod pairs;
mod reliability;
mod soft_labels;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::checkpoint::Finished;
use crate::data::Dataset;
use crate::loss::{Labels, Loss};
use crate::settings::Settings;
use crate::summary::Group;

/// The data to be drawn.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    data: &'a Dataset,
    settings: &'a Settings,
    groups: &'a [Group],
    finished: &'a [Finished],
}

impl<'a> Subject<'a> {
    fn group(&self, labels: Labels, loss: Loss) -> Result<&'a Group> {
        self.groups.iter().find(|group| group.labels == labels && group.loss == loss).context("a loss was not trained")
    }

    fn seeds(&self) -> String {
        match self.groups.first().map_or(0, |group| group.histories.len()) {
            1 => "one seed".into(),
            seeds => format!("{seeds} seeds"),
        }
    }
}

/// Draws every picture into `folder`.
pub fn draw_all(folder: &Path, data: &Dataset, settings: &Settings, groups: &[Group], finished: &[Finished]) -> Result<Vec<PathBuf>> {
    canvas::register_fonts()?;
    let subject = Subject { data, settings, groups, finished };
    let [overview, curves, soft_labels, pairs, reliability] =
        ["overview", "curves", "soft-labels", "confused-pairs", "reliability"].map(|name| folder.join(format!("{name}.png")));
    overview::draw(&overview, subject)?;
    curves::draw(&curves, subject)?;
    soft_labels::draw(&soft_labels, subject)?;
    pairs::draw(&pairs, subject)?;
    reliability::draw(&reliability, subject)?;
    Ok(vec![overview, curves, soft_labels, pairs, reliability])
}
