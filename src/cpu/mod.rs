//! The CPU backend: one fused pass per row.
//!
//! [`pass`] walks over the samples of a batch, [`row`] is the algorithm for one of them over the [`lanes`] of any level,
//! [`exp`] holds the elementary functions, [`storage`] the types that logits are stored in, [`level`] chooses the level.

mod exp;
mod float_environment;
mod lanes;
mod level;
mod pass;
mod row;
mod storage;

pub(crate) use float_environment::DefaultFloatEnvironment;
pub(crate) use level::Level;
pub(crate) use pass::{Pass, Scratch, Statistics, accumulate, run};
