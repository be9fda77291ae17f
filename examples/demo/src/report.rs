//! The table, on the terminal and in files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use serde::Serialize;

use crate::checkpoint::Finished;
use crate::settings::Settings;
use crate::summary::{Group, Spread};

const HEADER: [&str; 8] = [
    "Training labels",
    "Loss",
    "Test\naccuracy %",
    "Test NLL\n(nats)",
    "Test\nECE %",
    "Test accuracy %\nstopped early",
    "Training\naccuracy %",
    "Wrong labels\nlearned %",
];

/// Formats the table for the terminal.
pub fn table(groups: &[Group], noise: f64) -> Table {
    let mut table = filled(groups, noise, HEADER.map(String::from));
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
    table
}

fn markdown_table(groups: &[Group], noise: f64) -> Table {
    let mut table = filled(groups, noise, HEADER.map(|words| words.replace('\n', " ")));
    table.load_preset(presets::ASCII_MARKDOWN);
    table
}

fn filled(groups: &[Group], noise: f64, header: [String; 8]) -> Table {
    let mut table = Table::new();
    table.set_header(header);
    for (i, group) in groups.iter().enumerate() {
        // Each kind of labels is named once.
        let is_first = i == 0 || groups[i - 1].labels != group.labels;
        table.add_row([
            if is_first { group.labels.name(noise) } else { String::new() },
            group.loss.name().into(),
            percent(group.test_accuracy),
            format!("{:.3} ± {:.3}", group.test_nll.mean, group.test_nll.deviation),
            percent(group.test_ece),
            percent(group.early_stopped_test_accuracy),
            percent(group.train_accuracy),
            group.wrong_learned.map_or("–".into(), percent),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn percent(spread: Spread) -> String {
    format!("{:.1} ± {:.1}", 100.0 * spread.mean, 100.0 * spread.deviation)
}

/// Explains the columns of the table and the conditions of the experiment.
pub fn legend(data: &str, settings: &Settings, sizes: [usize; 3], seeds: usize) -> String {
    let [train, validation, test] = sizes;
    format!(
        "{data}: {train} training, {validation} validation and {test} test images; mean ± standard deviation over {seeds},\n\
         each with a split, first weights, batches and wrong labels of its own that the three losses share.\n\
         A perceptron with two hidden layers of {hidden}; SGD with momentum 0.9, weight decay {decay}, learning rate {rate} to 0\n\
         (cosine), batches of {batch}, {epochs} epochs. Label smoothing: eps {eps}; online label smoothing: alpha {alpha}.\n\
         Numbers are those of the last epoch. NLL: negative log-likelihood; ECE: expected calibration error, 15 bins.\n\
         Stopped early: at the best epoch by validation labels that are as wrong as the training labels.\n\
         Training accuracy: on the labels as given, wrong ones included.",
        seeds = if seeds == 1 { "one seed".into() } else { format!("{seeds} seeds") },
        hidden = settings.hidden,
        decay = settings.weight_decay,
        rate = settings.learning_rate,
        batch = settings.batch,
        epochs = settings.epochs,
        eps = settings.smoothing,
        alpha = settings.alpha,
    )
}

#[derive(Serialize)]
struct Summary<'a> {
    data: &'a str,
    settings: &'a Settings,
    seeds: usize,
    groups: &'a [Group],
}

#[derive(Serialize)]
struct Line {
    labels: &'static str,
    loss: &'static str,
    seed: u64,
    epoch: usize,
    train_loss: f64,
    train_accuracy: f64,
    wrong_learned: Option<f64>,
    validation_accuracy: f64,
    test_accuracy: f64,
    test_nll: f64,
    test_ece: f64,
}

/// Writes `summary.md`, `summary.json` and, with every epoch of every run, `history.csv`.
pub fn write(
    folder: &Path,
    data: &str,
    settings: &Settings,
    groups: &[Group],
    finished: &[Finished],
    legend: &str,
) -> Result<Vec<PathBuf>> {
    let [markdown, json, history] = ["summary.md", "summary.json", "history.csv"].map(|name| folder.join(name));

    let table = markdown_table(groups, settings.noise);
    fs::write(&markdown, format!("{table}\n\n{legend}\n")).with_context(|| markdown.display().to_string())?;

    let summary = Summary { data, settings, seeds: groups.first().map_or(0, |group| group.histories.len()), groups };
    fs::write(&json, serde_json::to_vec_pretty(&summary)?).with_context(|| json.display().to_string())?;

    write_history(&history, finished).with_context(|| history.display().to_string())?;
    Ok(vec![markdown, json, history])
}

fn write_history(path: &Path, finished: &[Finished]) -> Result<()> {
    let mut writer = csv::Writer::from_path(path)?;
    for result in finished.iter().map(|finished| &finished.result) {
        for (i, epoch) in result.history.iter().enumerate() {
            writer.serialize(Line {
                labels: result.run.labels.short_name(),
                loss: result.run.loss.short_name(),
                seed: result.run.seed,
                epoch: i + 1,
                train_loss: epoch.loss,
                train_accuracy: epoch.train_accuracy,
                wrong_learned: epoch.wrong_learned,
                validation_accuracy: epoch.validation_accuracy,
                test_accuracy: epoch.test_accuracy,
                test_nll: epoch.test_nll,
                test_ece: epoch.test_ece,
            })?;
        }
    }
    Ok(writer.flush()?)
}
