//! The learned soft labels as a heatmap.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::Subject;
use super::canvas::{self, Area, CENTRE, LEFT, RIGHT, bold, font, px, rectangle, text};
use super::colours::{self, DIAGONAL, FAINT_INK, INK};
use crate::loss::{Labels, Loss};

/// The side of the square of cells.
const SIDE: f64 = 430.0;
/// The width of the colour bar, on the right.
const BAR: f64 = 64.0;

pub fn draw(path: &Path, subject: Subject) -> Result<()> {
    let names = &subject.data.class_names;
    let room = names_room(names);
    let pitch = room + SIDE + BAR + 26.0;
    let width = 24.0 + 2.0 * pitch;
    canvas::draw(path, width as u32, (132.0 + SIDE + room.max(30.0)) as u32, |area| {
        let subtitle = format!(
            "{}, mean over {}. Row: class of the label; column: class that gets the probability. The diagonal takes no part in the colours.",
            subject.data.name,
            subject.seeds()
        );
        canvas::heading(area, "Soft labels that online label smoothing has learned, in %", &subtitle)?;
        for (column, labels) in Labels::ALL.into_iter().enumerate() {
            let x = 24.0 + room + pitch * column as f64;
            let soft_labels = &subject.group(labels, Loss::OnlineLabelSmoothing)?.soft_labels;
            text(area, &labels.name(subject.settings.noise), (x, 94.0), &bold(15.0), LEFT)?;
            heatmap(area, (x, 112.0), SIDE, names, soft_labels)?;
        }
        Ok(())
    })
}

/// Returns the space that the longest class name takes beside the rows, or rotated below the columns. It is an
/// estimate, because there is no area yet.
pub fn names_room(names: &[String]) -> f64 {
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    14.0 + 7.6 * longest as f64
}

/// Draws a square of cells with its upper left corner at x, y, with names on the left and below, and the colour bar on
/// the right.
pub fn heatmap(area: &Area, (x, y): (f64, f64), side: f64, names: &[String], soft_labels: &[Vec<f64>]) -> Result<()> {
    let classes = names.len();
    let cell = side / classes as f64;
    let (lowest, largest) = off_diagonal_range(soft_labels);
    let share = |value: f64| (value - lowest) / (largest - lowest);
    // Values are shown if the cells are large enough.
    let value_size = (cell * 0.3).min(13.0);
    let name_size = (cell * 0.6).min(13.0);
    for (row, values) in soft_labels.iter().enumerate() {
        let middle = y + (row as f64 + 0.5) * cell;
        if name_size > SMALLEST {
            text(area, &names[row], (x - 8.0, middle), &font(name_size), RIGHT)?;
        }
        for (column, value) in values.iter().enumerate() {
            let corner = (x + column as f64 * cell, y + row as f64 * cell);
            let is_diagonal = row == column;
            let colour = if is_diagonal { DIAGONAL } else { colours::heat(share(*value)) };
            rectangle(area, corner, (cell, cell), colour.filled())?;
            if value_size > SMALLEST {
                let ink = if is_diagonal { INK } else { colours::ink_on_heat(share(*value)) };
                let words = format!("{:.1}", 100.0 * value);
                text(area, &words, (corner.0 + cell / 2.0, middle), &font(value_size).color(&ink), CENTRE)?;
            }
        }
    }
    for line in 0..=classes {
        let at = line as f64 * cell;
        rectangle(area, (x + at - 0.5, y), (1.0, side), WHITE.filled())?;
        rectangle(area, (x, y + at - 0.5), (side, 1.0), WHITE.filled())?;
    }
    rectangle(area, (x, y), (side, side), FAINT_INK.stroke_width(px(0.5) as u32))?;
    column_names(area, (x, y + side), cell, name_size, names)?;
    colour_bar(area, (x + side + 14.0, y), side, (lowest, largest))
}

/// Text smaller than this is omitted.
const SMALLEST: f64 = 6.5;

fn off_diagonal_range(soft_labels: &[Vec<f64>]) -> (f64, f64) {
    let (mut lowest, mut largest) = (f64::INFINITY, 0.0f64);
    for (row, values) in soft_labels.iter().enumerate() {
        for (_, value) in values.iter().enumerate().filter(|(column, _)| *column != row) {
            lowest = lowest.min(*value);
            largest = largest.max(*value);
        }
    }
    (lowest, largest.max(lowest + 1e-6))
}

/// Draws the names below the columns: horizontally if they fit, otherwise rotated.
fn column_names(area: &Area, (left, y): (f64, f64), cell: f64, size: f64, names: &[String]) -> Result<()> {
    if size <= SMALLEST {
        return Ok(());
    }
    let style = font(size);
    let mut fit = true;
    for name in names {
        fit &= canvas::text_width(area, name, &style)? < cell - 6.0;
    }
    for (column, name) in names.iter().enumerate() {
        let middle = left + (column as f64 + 0.5) * cell;
        if fit {
            text(area, name, (middle, y + 14.0), &style, CENTRE)?;
        } else {
            // If text is rotated by 270 degrees, its right end is at the top.
            text(area, name, (middle, y + 8.0), &style.transform(FontTransform::Rotate270), RIGHT)?;
        }
    }
    Ok(())
}

fn colour_bar(area: &Area, (x, y): (f64, f64), height: f64, (lowest, largest): (f64, f64)) -> Result<()> {
    const STEPS: usize = 200;
    const WIDTH: f64 = 14.0;
    let step = height / STEPS as f64;
    for i in 0..STEPS {
        let share = 1.0 - (i as f64 + 0.5) / STEPS as f64;
        rectangle(area, (x, y + i as f64 * step), (WIDTH, step + 0.5), colours::heat(share).filled())?;
    }
    rectangle(area, (x, y), (WIDTH, height), FAINT_INK.stroke_width(px(0.5) as u32))?;
    let (low, high) = (100.0 * lowest, 100.0 * largest);
    let (distance, digits) = tick_distance(high - low);
    let mut tick = (low / distance).ceil() * distance;
    while tick <= high {
        let at = y + (high - tick) / (high - low) * height;
        rectangle(area, (x + WIDTH, at - 0.5), (4.0, 1.0), FAINT_INK.filled())?;
        text(area, &format!("{tick:.digits$}"), (x + WIDTH + 8.0, at), &font(12.0), LEFT)?;
        tick += distance;
    }
    Ok(())
}

/// Returns a round distance between ticks, of which there are at most six in `range`, and the number of decimal places.
fn tick_distance(range: f64) -> (f64, usize) {
    let candidates = [(0.01, 2), (0.02, 2), (0.05, 2), (0.1, 1), (0.2, 1), (0.5, 1), (1.0, 0), (2.0, 0), (5.0, 0), (10.0, 0)];
    candidates.into_iter().find(|(distance, _)| range / distance <= 6.0).unwrap_or((20.0, 0))
}
