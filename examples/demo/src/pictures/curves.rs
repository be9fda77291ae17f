//! Test accuracy and likelihood per epoch.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::Subject;
use super::canvas::{self, Area, LEFT, bold, font, part, px, text};
use super::colours::{self, GRID, INK};
use crate::loss::{Labels, Loss};
use crate::summary::Spread;
use crate::training::Epoch;

/// A quantity of an epoch: its name with the unit, and the number of decimal places.
pub struct Quantity {
    name: &'static str,
    of: fn(&Epoch) -> f64,
    digits: usize,
}

pub const ACCURACY: Quantity = Quantity { name: "test accuracy (%)", of: |epoch| 100.0 * epoch.test_accuracy, digits: 0 };
const NLL: Quantity = Quantity { name: "test NLL (nats)", of: |epoch| epoch.test_nll, digits: 2 };

pub fn draw(path: &Path, subject: Subject) -> Result<()> {
    canvas::draw(path, 1000, 760, |area| {
        let subtitle = format!("{}; mean and standard deviation over {}", subject.data.name, subject.seeds());
        canvas::heading(area, "Test accuracy and negative log-likelihood while training", &subtitle)?;
        legend(area, 24.0, 84.0)?;
        for (column, labels) in Labels::ALL.into_iter().enumerate() {
            let x = 12.0 + 490.0 * column as f64;
            text(area, &labels.name(subject.settings.noise), (x + 66.0, 120.0), &bold(15.0), LEFT)?;
            panel(&part(area, x, 132.0, 480.0, 300.0), subject, labels, &ACCURACY)?;
            panel(&part(area, x, 446.0, 480.0, 300.0), subject, labels, &NLL)?;
        }
        Ok(())
    })
}

/// Draws the three losses in their colours, in a row.
pub fn legend(area: &Area, x: f64, y: f64) -> Result<()> {
    let mut x = x;
    for loss in Loss::ALL {
        canvas::rectangle(area, (x, y - 2.0), (26.0, 4.0), colours::of(loss).filled())?;
        text(area, loss.name(), (x + 34.0, y), &font(14.0), LEFT)?;
        x += 34.0 + canvas::text_width(area, loss.name(), &font(14.0))? + 30.0;
    }
    Ok(())
}

/// Draws a chart of the three losses for one kind of labels.
pub fn panel(area: &Area, subject: Subject, labels: Labels, quantity: &Quantity) -> Result<()> {
    let curves =
        Loss::ALL.into_iter().map(|loss| Ok((loss, subject.group(labels, loss)?.curve(quantity.of)))).collect::<Result<Vec<_>>>()?;
    let epochs = subject.settings.epochs;
    let (low, high) = range(curves.iter().map(|(_, curve)| &curve[..]));
    let mut chart = ChartBuilder::on(area)
        .margin_top(px(8.0))
        .margin_right(px(12.0))
        .x_label_area_size(px(44.0))
        .y_label_area_size(px(66.0))
        .build_cartesian_2d(1.0..epochs.max(2) as f64, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(px(0.75) as u32))
        .axis_style(INK.stroke_width(px(0.75) as u32))
        .set_all_tick_mark_size(px(4.0))
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .y_label_formatter(&|value| format!("{value:.*}", quantity.digits))
        .label_style(font(12.5))
        .axis_desc_style(font(13.0))
        .x_desc("epoch")
        .y_desc(quantity.name)
        .draw()?;
    let clamp = |value: f64| value.clamp(low, high);
    for (loss, curve) in &curves {
        let at = |i: usize| (i + 1) as f64;
        let upper = curve.iter().enumerate().map(|(i, s)| (at(i), clamp(s.mean + s.deviation)));
        let lower = curve.iter().enumerate().map(|(i, s)| (at(i), clamp(s.mean - s.deviation)));
        let band: Vec<_> = upper.chain(lower.rev()).collect();
        chart.draw_series([Polygon::new(band, colours::of(*loss).mix(0.18))])?;
    }
    for (loss, curve) in &curves {
        let line = curve.iter().enumerate().map(|(i, s)| ((i + 1) as f64, clamp(s.mean)));
        let line = line.skip_while(|(_, value)| *value <= low || *value >= high);
        chart.draw_series(LineSeries::new(line, colours::of(*loss).stroke_width(px(2.25) as u32)))?;
    }
    Ok(())
}

/// Returns the range from the lowest to the highest point. The first twentieth of the epochs, where the curves are
/// steep, may be cut off.
fn range<'a>(curves: impl Iterator<Item = &'a [Spread]>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for curve in curves {
        for spread in &curve[(curve.len() / 20).min(curve.len() - 1)..] {
            low = low.min(spread.mean - spread.deviation);
            high = high.max(spread.mean + spread.deviation);
        }
    }
    let margin = ((high - low) * 0.05).max(1e-3);
    (low - margin, high + margin)
}
