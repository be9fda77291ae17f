//! The CPU backend: one fused pass over the rows of a batch.
//!
//! [`pass`] shares the blocks of a batch out to the threads of a [`pool`]; [`block`] takes the samples of a block to the kernel that suits them. Three
//! have a class in each lane: [`single`] for rows that fit one vector, [`few`] for up to 128 classes, [`rows`] for more (its sweeps are in [`row`]).
//! [`columns`] has a sample in each lane, for images of few classes. [`softmax`] is what all end with, [`sums`] the order in which all add up.
//!
//! They are written once over the [`lanes`] of any level of the instruction set; [`level`] chooses it. [`exp`] holds the elementary functions, [`storage`]
//! the types that logits are stored in, [`memory`] the ways that rows lie in, [`labels`] what comes with them, [`adder`] what a thread does to the
//! statistics, [`scratch`] the working memory.

mod adder;
mod block;
mod columns;
mod exp;
mod few;
mod finish;
mod float_environment;
mod given;
mod labels;
mod lanes;
mod level;
mod memory;
mod pass;
mod pool;
mod row;
mod rows;
mod scratch;
mod single;
mod softmax;
mod storage;
mod sums;

pub(crate) use float_environment::DefaultFloatEnvironment;
pub(crate) use given::accumulate;
pub(crate) use level::Level;
pub(crate) use pass::{Pass, Statistics, run};
pub(crate) use scratch::Scratch;
