//! The compiled kernels, as written by `cuda/build`: machine code for common architectures, and PTX that the driver
//! compiles for newer ones. Compressed with zlib, and decompressed when a device needs them.

use std::sync::OnceLock;

use super::variants::Module;

/// One module, as PTX or as machine code for one architecture.
pub(super) struct Image {
    packed: &'static [u8],
    unpacked: OnceLock<Vec<u8>>,
}

impl Image {
    const fn new(packed: &'static [u8]) -> Self {
        Self { packed, unpacked: OnceLock::new() }
    }

    /// The image to pass to the driver: PTX or an ELF file, with a terminating 0, which PTX requires.
    pub fn bytes(&self) -> &[u8] {
        self.unpacked.get_or_init(|| {
            let unpacked = miniz_oxide::inflate::decompress_to_vec_zlib(self.packed);
            let mut bytes = unpacked.unwrap_or_else(|_| unreachable!("the kernels were packed by cuda/build"));
            bytes.push(0);
            bytes
        })
    }
}

static OLS: Image = Image::new(include_bytes!("../../cuda/compiled/ols.ptx.zz"));
static HOPPER: Image = Image::new(include_bytes!("../../cuda/compiled/hopper.ptx.zz"));
static SM_75: Image = Image::new(include_bytes!("../../cuda/compiled/sm_75.zz"));
static SM_80: Image = Image::new(include_bytes!("../../cuda/compiled/sm_80.zz"));
static SM_90: Image = Image::new(include_bytes!("../../cuda/compiled/sm_90.zz"));

/// The image of a module for a device. Machine code runs on devices of the same major compute capability with the
/// same or a higher minor one.
pub(super) fn image(module: Module, capability: (i32, i32)) -> &'static Image {
    match (module, capability) {
        (Module::Ols, (7, 5..)) => &SM_75,
        (Module::Ols, (8, _)) => &SM_80,
        (Module::Ols, _) => &OLS,
        (Module::Hopper, (9, _)) => &SM_90,
        (Module::Hopper, _) => &HOPPER,
    }
}
