//! Reliability diagram: how often predictions of a given confidence are correct.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::Subject;
use super::canvas::{self, Area, LEFT, bold, font, part, px, text};
use super::colours::{self, FAINT_INK, GAP, GRID, INK};
use crate::loss::{Labels, Loss};
use crate::metrics::BINS;
use crate::summary::Group;

pub fn draw(path: &Path, subject: Subject) -> Result<()> {
    canvas::draw(path, 1000, 820, |area| {
        let subtitle = format!(
            "{}, test images of {}. Bars: how often predictions are right; black: how often they claim to be; between them: the gap.",
            subject.data.name,
            subject.seeds()
        );
        canvas::heading(area, "Reliability after the last epoch", &subtitle)?;
        let more = "Pale: less than 1 % of the predictions. A bar above the dashed line: better than claimed; below: overconfident.";
        text(area, more, (24.0, 72.0), &font(13.0).color(&FAINT_INK), LEFT)?;
        for (row, labels) in Labels::ALL.into_iter().enumerate() {
            let y = 104.0 + 356.0 * row as f64;
            for (column, loss) in Loss::ALL.into_iter().enumerate() {
                let x = 10.0 + 328.0 * column as f64;
                let group = subject.group(labels, loss)?;
                text(area, loss.name(), (x + 58.0, y + 6.0), &bold(14.0).color(&colours::of(loss)), LEFT)?;
                let words = format!("{}, ECE {:.1} %", labels.name(subject.settings.noise), 100.0 * group.test_ece.mean);
                text(area, &words, (x + 58.0, y + 26.0), &font(13.0), LEFT)?;
                panel(&part(area, x, y + 36.0, 320.0, 300.0), group)?;
            }
        }
        Ok(())
    })
}

fn panel(area: &Area, group: &Group) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(px(8.0))
        .margin_right(px(12.0))
        .x_label_area_size(px(44.0))
        .y_label_area_size(px(58.0))
        .build_cartesian_2d(0.0..100.0, 0.0..100.0)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(px(0.75) as u32))
        .axis_style(INK.stroke_width(px(0.75) as u32))
        .set_all_tick_mark_size(px(4.0))
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(font(12.0))
        .axis_desc_style(font(12.5))
        .x_desc("confidence (%)")
        .y_desc("right (%)")
        .draw()?;
    let count: usize = group.calibration.bins.iter().map(|bin| bin.count).sum();
    let width = 100.0 / BINS as f64;
    for (i, bin) in group.calibration.bins.iter().enumerate().filter(|(_, bin)| bin.count > 0) {
        let (left, right) = (i as f64 * width + 0.5, (i + 1) as f64 * width - 0.5);
        let accuracy = 100.0 * bin.right as f64 / bin.count as f64;
        let confidence = 100.0 * bin.confidence / bin.count as f64;
        // A bin with less than a hundredth of the predictions is drawn paler, because its height is mostly noise.
        let strength = if bin.count * 100 < count { 0.35 } else { 1.0 };
        chart.draw_series([Rectangle::new([(left, 0.0), (right, accuracy)], colours::of(group.loss).mix(strength).filled())])?;
        chart.draw_series([Rectangle::new([(left, accuracy), (right, confidence)], GAP.mix(0.35 * strength).filled())])?;
        chart.draw_series([Rectangle::new([(left, confidence - 0.4), (right, confidence + 0.4)], INK.mix(strength).filled())])?;
    }
    let dash = |i: i32| ((f64::from(i) * 4.0, f64::from(i) * 4.0), (f64::from(i) * 4.0 + 2.2, f64::from(i) * 4.0 + 2.2));
    let dashes = (0..25).map(dash);
    chart.draw_series(dashes.map(|(a, b)| PathElement::new([a, b], FAINT_INK.stroke_width(px(1.0) as u32))))?;
    Ok(())
}
