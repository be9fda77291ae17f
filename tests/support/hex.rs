//! Numbers that survive a text file to the bit: C's `%a`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// An `f64` that is written as `"0x1.8p+1"`, `"nan"`, `"inf"` or `"-inf"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hex(pub f64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0.is_sign_negative() { "-" } else { "" };
        if self.0.is_nan() {
            return f.write_str("nan");
        }
        if self.0.is_infinite() {
            return write!(f, "{sign}inf");
        }
        let (exponent, fraction) = ((self.0.to_bits() >> 52) as i32 & 0x7ff, self.0.to_bits() & ((1 << 52) - 1));
        let (lead, exponent) = match exponent {
            0 if fraction == 0 => (0, 0),
            0 => (0, -1022),
            _ => (1, exponent - 1023),
        };
        let digits = format!("{fraction:013x}");
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        write!(f, "{sign}0x{lead}{point}{digits}p{exponent:+}")
    }
}

impl Hex {
    /// The number that `text` is, or `None`.
    pub fn parse(text: &str) -> Option<f64> {
        let (sign, rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
        match rest {
            "nan" => return Some(f64::NAN),
            "inf" => return Some(sign * f64::INFINITY),
            _ => {}
        }
        let (digits, exponent) = rest.strip_prefix("0x")?.split_once('p')?;
        let (lead, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let significand = u64::from_str_radix(&format!("{lead}{fraction}"), 16).ok()?;
        let exponent = exponent.parse::<i32>().ok()? - 4 * fraction.len() as i32;
        // Two steps, as the power alone may be out of range where the product is not.
        let (first, second) = (exponent / 2, exponent - exponent / 2);
        Some(sign * significand as f64 * 2f64.powi(first) * 2f64.powi(second))
    }

    /// `value` with 32 bits behind the point of its significand: enough for what is compared in 2^-24, and half as long.
    pub fn short(value: f64) -> Self {
        if !value.is_finite() {
            return Self(value);
        }
        Self(f64::from_bits((value.to_bits() + (1 << 19)) & !((1 << 20) - 1)))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is not a hexadecimal number")))
    }
}
