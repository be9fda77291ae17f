//! The saved state: a safetensors file, readable by anyone, with a checksum. `docs/file-format.md` says what is in it.

mod contents;
mod read;
mod write;

pub(crate) use read::{parse, read};
pub(crate) use write::{save, size, to_bytes};

/// The number of this format. A reader takes files of its own number and of lower ones.
const FORMAT: u32 = 1;
/// The entry of the file's metadata that is this library's.
const METADATA_KEY: &str = "libols";
