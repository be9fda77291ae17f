//! The names that members of enumerations have in the files.

use ols::{DType, EmptyClass, ErrorKind, Mode, Reduction, Update};
use serde::{Deserialize, Serialize};

/// A member of an enumeration, which a file gives by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Name<T>(pub T);

/// An enumeration whose members have names in the files.
pub trait Named: Sized + Copy + PartialEq + 'static {
    /// The members, in the order of the constants of the C include.
    const NAMES: &'static [(Self, &'static str)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(value, _)| *value == self).expect("every member has a name").1
    }

    fn code(self) -> usize {
        Self::NAMES.iter().position(|(value, _)| *value == self).expect("every member has a name")
    }
}

impl<T: Named> Serialize for Name<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de, T: Named> Deserialize<'de> for Name<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let found = T::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(value, _)| Self(*value)).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no name")))
    }
}

impl Named for DType {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::F32, "f32"),
        (Self::F64, "f64"),
        (Self::F16, "f16"),
        (Self::Bf16, "bf16"),
        (Self::I64, "i64"),
        (Self::I32, "i32"),
        (Self::U8, "u8"),
    ];
}

impl Named for EmptyClass {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Keep, "keep"), (Self::Uniform, "uniform"), (Self::Initial, "initial"), (Self::OneHot, "one_hot"), (Self::Zero, "zero")];
}

impl Named for Reduction {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::None, "none"), (Self::Mean, "mean"), (Self::Sum, "sum")];
}

impl Named for Mode {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Train, "train"), (Self::Eval, "eval")];
}

impl Named for Update {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Add, "add"), (Self::None, "none"), (Self::TakeBack, "take_back")];
}

impl Named for ErrorKind {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::InvalidArgument, "invalid_argument"),
        (Self::InvalidDtype, "invalid_dtype"),
        (Self::InvalidShape, "invalid_shape"),
        (Self::TargetOutOfRange, "target_out_of_range"),
        (Self::InvalidState, "invalid_state"),
    ];
}
