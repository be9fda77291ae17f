//! What the conformance cases and the property tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod buffer;
pub mod c_include;
pub mod cases;
pub mod hex;
pub mod life;
pub mod model;
pub mod oracle;
pub mod runner;
