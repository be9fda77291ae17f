//! A canvas that is drawn in a higher resolution than it is saved in, for smooth edges, and that has its own fonts.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels of the file per unit of length, for high-density screens.
const DENSITY: u32 = 2;
/// Drawn pixels per pixel of the file, in each direction.
const OVERSAMPLING: u32 = 2;

const FONT: &str = "DejaVu Sans";

pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

pub fn register_fonts() -> Result<()> {
    let regular = include_bytes!("../../fonts/DejaVuSans-subset.ttf");
    let bold = include_bytes!("../../fonts/DejaVuSans-Bold-subset.ttf");
    plotters::style::register_font(FONT, FontStyle::Normal, regular).map_err(|_| anyhow!("the bundled font is damaged"))?;
    plotters::style::register_font(FONT, FontStyle::Bold, bold).map_err(|_| anyhow!("the bundled bold font is damaged"))
}

/// Draws a picture of `width` by `height` units and saves it as a PNG file.
pub fn draw(path: &Path, width: u32, height: u32, paint: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    let (drawn_width, drawn_height) = (px(width.into()) as u32, px(height.into()) as u32);
    let mut pixels = vec![255; (3 * drawn_width * drawn_height) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (drawn_width, drawn_height)).into_drawing_area();
        area.fill(&WHITE)?;
        paint(&area)?;
        area.present()?;
    }
    let drawn = RgbImage::from_raw(drawn_width, drawn_height, pixels).context("a buffer of another size")?;
    let small = resize(&drawn, width * DENSITY, height * DENSITY, FilterType::Triangle);
    small.save(path).with_context(|| path.display().to_string())
}

/// Converts units to drawn pixels.
pub fn px(units: f64) -> i32 {
    (units * f64::from(DENSITY * OVERSAMPLING)).round() as i32
}

/// Returns a part of an area, in units from its upper left corner.
pub fn part<'a>(area: &Area<'a>, x: f64, y: f64, width: f64, height: f64) -> Area<'a> {
    area.clone().shrink((px(x), px(y)), (px(width), px(height)))
}

pub fn font(size: f64) -> TextStyle<'static> {
    (FONT, px(size)).into_font().color(&super::colours::INK)
}

pub fn bold(size: f64) -> TextStyle<'static> {
    (FONT, px(size), FontStyle::Bold).into_font().color(&super::colours::INK)
}

/// Draws text whose anchor (`horizontal`, `vertical`) is at x, y.
pub fn text(area: &Area, words: &str, (x, y): (f64, f64), style: &TextStyle, (horizontal, vertical): (HPos, VPos)) -> Result<()> {
    let style = style.pos(Pos::new(horizontal, vertical));
    area.draw_text(words, &style, (px(x), px(y)))?;
    Ok(())
}

pub const LEFT: (HPos, VPos) = (HPos::Left, VPos::Center);
pub const CENTRE: (HPos, VPos) = (HPos::Center, VPos::Center);
pub const RIGHT: (HPos, VPos) = (HPos::Right, VPos::Center);

pub fn rectangle(area: &Area, (x, y): (f64, f64), (width, height): (f64, f64), style: impl Into<ShapeStyle>) -> Result<()> {
    area.draw(&Rectangle::new([(px(x), px(y)), (px(x + width), px(y + height))], style))?;
    Ok(())
}

/// Draws a bold heading and, below it, a line that explains the picture.
pub fn heading(area: &Area, title: &str, subtitle: &str) -> Result<()> {
    text(area, title, (24.0, 28.0), &bold(19.0), LEFT)?;
    text(area, subtitle, (24.0, 53.0), &font(13.0).color(&super::colours::FAINT_INK), LEFT)
}

/// Returns the width of a text in units.
pub fn text_width(area: &Area, words: &str, style: &TextStyle) -> Result<f64> {
    Ok(f64::from(area.estimate_text_size(words, style)?.0) / f64::from(px(1.0)))
}

/// Draws an image, dark on light, in a square of `size` units.
pub fn image(area: &Area, pixels: &[f32], columns: usize, (x, y): (f64, f64), size: f64) -> Result<()> {
    let rows = pixels.len() / columns;
    let step = size / columns.max(rows) as f64;
    for (i, brightness) in pixels.iter().enumerate() {
        let (column, row) = ((i % columns) as f64, (i / columns) as f64);
        let grey = (255.0 * (1.0 - brightness)).round() as u8;
        let (left, top) = (px(x + column * step), px(y + row * step));
        let (right, bottom) = (px(x + (column + 1.0) * step), px(y + (row + 1.0) * step));
        area.draw(&Rectangle::new([(left, top), (right, bottom)], RGBColor(grey, grey, grey).filled()))?;
    }
    rectangle(area, (x, y), (size, size), super::colours::GRID.stroke_width(2))
}
