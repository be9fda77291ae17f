//! The CUDA backend without a GPU: the library's own host code and kernels, on a stand-in for the driver
//! (cuda/tests), compared with the executable specification. `cargo test --release cuda` runs all of it; g++ builds
//! the stand-in. Not in debug builds, which would take minutes longer and find the same.
#![cfg(not(debug_assertions))]

#[path = "../support/alone.rs"]
mod alone;
#[path = "../support/mod.rs"]
mod support;

mod behaviour;
mod capture;
mod compiled;
mod conformance;
mod copies;
mod device;
mod errors;
mod extremes;
mod fixture;
mod paths;
mod properties;
mod rust;
mod sanitizers;
mod standin;
