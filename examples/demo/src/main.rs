//! The demo: compares cross entropy, label smoothing and online label smoothing.

mod arguments;
mod checkpoint;
mod data;
mod experiment;
mod loss;
mod metrics;
mod network;
mod noise;
mod optimiser;
mod pictures;
mod progress;
mod random;
mod report;
mod settings;
mod summary;
mod training;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Parser;

use arguments::Arguments;
use checkpoint::Store;
use data::{Dataset, Split};
use experiment::Experiment;
use loss::Run;
use progress::Display;
use settings::Settings;

/// The exit status of a program that was terminated by SIGINT, as reported by a shell: 128 + 2.
const INTERRUPTED: u8 = 130;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ols-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let data = Dataset::read(arguments.data.as_deref())?;
    let settings = settings(arguments, &data);
    let out = arguments.out();
    let store = Store::open(out.join("runs"))?;
    let runs = Run::all(arguments.seeds());
    match Settings::load(&out)? {
        Some(earlier) if arguments.resume => settings.check_same_as(&earlier)?,
        _ if arguments.resume => eprintln!("There is nothing to resume in {}: beginning anew.", short(&out).display()),
        _ => {}
    }
    if !arguments.resume {
        store.clear(runs.iter().copied())?;
    }
    settings.save(&out)?;

    ctrlc::set_handler(|| {
        // The second interrupt ends the program at once.
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    })?;
    let display = Display::new(runs.len(), &settings);
    let experiment = Experiment { data: &data, settings: &settings, store: &store, display: &display, interrupted: &STOP };
    let finished = experiment.run(&runs, arguments.threads());
    display.clear();
    let Some(finished) = finished? else {
        eprintln!("Interrupted; everything so far is saved. Go on with:\n  {}", resume_command());
        return Ok(ExitCode::from(INTERRUPTED));
    };

    let groups = summary::summarise(&data, &settings, &finished);
    let split = Split::draw(&data, 0, settings.train);
    let sizes = [split.train.len(), split.validation.len(), split.test.len()];
    let legend = report::legend(&data.name, &settings, sizes, arguments.seeds() as usize);
    println!("{}\n\n{legend}\n", report::table(&groups, settings.noise));
    let mut files = report::write(&out, &data.name, &settings, &groups, &finished, &legend)?;
    files.extend(pictures::draw_all(&out, &data, &settings, &groups, &finished).context("the pictures could not be drawn")?);
    println!("Written:");
    for file in files {
        println!("  {}", short(&file).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The conditions that all runs share. This weight decay, compared with none, improves the validation accuracy of all
/// three losses with wrong labels; the number of epochs is that in which cross entropy memorises these labels. Alpha
/// and epsilon are those of the papers and have not been tuned.
fn settings(arguments: &Arguments, data: &Dataset) -> Settings {
    Settings {
        data: arguments.data.as_ref().map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.clone())),
        data_checksum: data.checksum(),
        train: Split::draw(data, 0, arguments.train()).train.len(),
        epochs: arguments.epochs(),
        noise: arguments.noise,
        batch: 32,
        hidden: arguments.hidden,
        learning_rate: arguments.learning_rate,
        weight_decay: arguments.weight_decay,
        alpha: arguments.alpha,
        smoothing: arguments.smoothing,
    }
}

/// Returns the path relative to the current folder, if possible.
fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

fn resume_command() -> String {
    let mut words = vec!["cargo run --release -p ols-demo --".to_owned()];
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    words.extend(arguments.filter(|word| word != "--resume").map(|word| match word.contains([' ', '\'', '"', '$']) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word,
    }));
    words.push("--resume".into());
    words.join(" ")
}
