//! The compiled kernels: PTX, which every newer device compiles for itself, and machine code of the common architectures, which needs no compiler. Made
//! by `cuda/build`, packed by zlib, and unpacked when a device wants them.

use std::sync::OnceLock;

use super::variants::Module;

/// The kernels of a module in one form.
pub(super) struct Image {
    packed: &'static [u8],
    unpacked: OnceLock<Vec<u8>>,
}

impl Image {
    const fn new(packed: &'static [u8]) -> Self {
        Self { packed, unpacked: OnceLock::new() }
    }

    /// What the driver takes: PTX, or an ELF file; with a 0 behind it, as text is to have.
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

/// A module's kernels for a device. Machine code runs on devices of the same major capability, and of the same minor one or a higher.
pub(super) fn image(module: Module, capability: (i32, i32)) -> &'static Image {
    match (module, capability) {
        (Module::Ols, (7, 5..)) => &SM_75,
        (Module::Ols, (8, _)) => &SM_80,
        (Module::Ols, _) => &OLS,
        (Module::Hopper, (9, _)) => &SM_90,
        (Module::Hopper, _) => &HOPPER,
    }
}
