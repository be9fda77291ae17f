//! What the tests of the ABI share: the header's generator, the layout as assertions in C, compilers, and the library they link to.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod header;
pub mod layout;
pub mod toolchain;

use std::path::{Path, PathBuf};

/// A path of the repository.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the repository.
pub fn text(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
