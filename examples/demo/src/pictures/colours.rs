//! Colours that also differ in lightness and can be distinguished by colour-blind readers.

use plotters::style::RGBColor;

use crate::loss::Loss;

pub const INK: RGBColor = RGBColor(34, 34, 34);
pub const FAINT_INK: RGBColor = RGBColor(110, 110, 110);
pub const GRID: RGBColor = RGBColor(226, 226, 226);
pub const DIAGONAL: RGBColor = RGBColor(232, 232, 232);
pub const GAP: RGBColor = RGBColor(150, 150, 150);

/// From Okabe and Ito, <https://jfly.uni-koeln.de/color/>; their dark blue is darkened.
pub fn of(loss: Loss) -> RGBColor {
    match loss {
        Loss::CrossEntropy => RGBColor(213, 94, 0),
        Loss::LabelSmoothing => RGBColor(86, 180, 233),
        Loss::OnlineLabelSmoothing => RGBColor(0, 72, 120),
    }
}

/// From white through yellow and green to dark blue (ColorBrewer's YlGnBu), for 0 to 1.
pub fn heat(share: f64) -> RGBColor {
    const STOPS: [(u8, u8, u8); 9] = [
        (255, 255, 255),
        (237, 248, 217),
        (199, 233, 180),
        (127, 205, 187),
        (65, 182, 196),
        (29, 145, 192),
        (34, 94, 168),
        (37, 52, 148),
        (8, 29, 88),
    ];
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let low = (place as usize).min(STOPS.len() - 2);
    let between = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (place - low as f64)).round() as u8;
    let (a, b) = (STOPS[low], STOPS[low + 1]);
    RGBColor(between(a.0, b.0), between(a.1, b.1), between(a.2, b.2))
}

/// A text colour that is legible on `heat(share)`.
pub fn ink_on_heat(share: f64) -> RGBColor {
    if share > 0.58 { RGBColor(255, 255, 255) } else { INK }
}
