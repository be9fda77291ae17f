//! The CPU backend: one fused pass over the rows of a batch.
//!
//! [`pass`] distributes the blocks of a batch to the threads of a [`pool`]. [`block`] gives the samples of a block to the kernel that suits
//! them. Three kernels have a class in each lane: [`single_vector`] for rows that fit one vector, [`short_rows`] for up to 128 classes, and
//! [`long_rows`] for more, by the [`sweeps`] over a row. [`columns`] has a sample in each lane, for images of few classes. All of them sum in
//! the order that [`sums`] defines, get losses from these sums by [`softmax`], and end with [`finish`].
//!
//! Kernels are written once, over the vectors of [`lanes`], and compiled for each instruction set; [`level`] chooses one at run time. [`exp`]
//! has the elementary functions, [`storage`] the types of logits, [`memory`] the layouts of rows, [`labels`] and [`soft_label`] the targets,
//! [`accumulator`] the access to the statistics, [`scratch`] the working memory. [`probabilities`] adds to the statistics without a kernel.

mod accumulator;
mod block;
mod columns;
mod exp;
mod finish;
mod float_environment;
mod labels;
mod lanes;
mod level;
mod long_rows;
mod memory;
mod pass;
mod pool;
mod probabilities;
mod scratch;
mod short_rows;
mod single_vector;
mod soft_label;
mod softmax;
mod storage;
mod sums;
mod sweeps;

pub(crate) use float_environment::DefaultFloatEnvironment;
pub(crate) use level::Level;
pub(crate) use pass::{Pass, Statistics, run};
pub(crate) use probabilities::accumulate;
pub(crate) use scratch::Scratch;
