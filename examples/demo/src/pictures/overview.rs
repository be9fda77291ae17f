//! The experiment at a glance, for the top of a page.

use std::path::Path;

use anyhow::Result;

use super::Subject;
use super::canvas::{self, LEFT, bold, font, part, text};
use super::colours::FAINT_INK;
use super::curves::{self, ACCURACY};
use super::soft_labels::{heatmap, names_room};
use crate::loss::{Labels, Loss};

/// The side of the square of cells.
const SIDE: f64 = 400.0;
/// The left edge of the right half.
const MIDDLE: f64 = 580.0;

pub fn draw(path: &Path, subject: Subject) -> Result<()> {
    let names = &subject.data.class_names;
    let room = names_room(names);
    let width = MIDDLE + room + SIDE + 64.0;
    let height = 112.0 + SIDE + room.max(30.0);
    canvas::draw(path, width as u32, height as u32, |area| {
        let faint = font(12.5).color(&FAINT_INK);
        text(area, &format!("Trained with {}", Labels::Noisy.name(subject.settings.noise)), (24.0, 28.0), &bold(18.0), LEFT)?;
        let subtitle = format!("{}; mean and standard deviation over {}", subject.data.name, subject.seeds());
        text(area, &subtitle, (24.0, 52.0), &faint, LEFT)?;
        curves::legend(area, 24.0, 82.0)?;
        curves::panel(&part(area, 14.0, 98.0, MIDDLE - 44.0, SIDE + 40.0), subject, Labels::Noisy, &ACCURACY)?;

        let x = MIDDLE + room;
        text(area, "Soft labels learned, in %", (x, 28.0), &bold(18.0), LEFT)?;
        let subtitle = "clean labels; row: class of the label, column: class that gets the probability";
        text(area, subtitle, (x, 52.0), &faint, LEFT)?;
        let soft_labels = &subject.group(Labels::Clean, Loss::OnlineLabelSmoothing)?.soft_labels;
        heatmap(area, (x, 82.0), SIDE, names, soft_labels)
    })
}
