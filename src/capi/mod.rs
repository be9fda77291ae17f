//! The C ABI: the only `extern "C"` of the library, described for its users by `include/ols.h`, which is generated from this folder.
//!
//! Every export is a plain `extern "C"` function whose body runs inside [`boundary`](boundary::boundary), takes its arguments apart with
//! [`args`], and does its work on the safe [`Criterion`](crate::Criterion). Every type in a signature is proven to have a C layout below.
//!
//! From Rust use the crate itself; these functions are for everybody else.
#![allow(unsafe_code, reason = "a C caller's pointers are promises that only its author can check")]
#![allow(missing_docs, reason = "derive_ReprC makes types of its own without any; that ours have docs is tested on the header")]
#![allow(non_camel_case_types, reason = "the names are those of the C header")]

mod args;
mod batch;
mod boundary;
mod criterion;
#[cfg(ols_test_hooks)]
mod hooks;
mod options;
mod passes;
mod settings;
mod soft_labels;
mod state;
mod statistics;
mod status;
mod tensor;
mod versions;

pub use batch::*;
pub use criterion::*;
pub use options::*;
pub use passes::*;
pub use settings::*;
pub use soft_labels::*;
pub use state::*;
pub use statistics::*;
pub use status::*;
pub use tensor::*;
pub use versions::*;

/// Fails to compile when a type in an exported signature has no defined C layout.
macro_rules! assert_crosses_abi {
    ($($ty:ty),+ $(,)?) => {
        const _: () = {
            const fn proven<T: safer_ffi::layout::ReprC>() {}
            $( proven::<$ty>(); )+
        };
    };
}
assert_crosses_abi!(
    (),
    i32,
    u32,
    i64,
    usize,
    f64,
    *const std::ffi::c_char,
    *const std::ffi::c_void,
    *const ols_batch_t,
    *const ols_criterion_t,
    *const ols_options_t,
    *const ols_tensor_t,
    *mut Option<safer_ffi::prelude::repr_c::Box<ols_criterion_t>>,
    *mut f64,
    *mut i32,
    *mut i64,
    *mut ols_batch_t,
    *mut ols_criterion_t,
    *mut ols_options_t,
    *mut ols_report_t,
    *mut ols_statistics_t,
    *mut ols_tensor_t,
    *mut std::ffi::c_void,
    *mut usize,
    Option<safer_ffi::prelude::repr_c::Box<ols_criterion_t>>,
    ols_dtype_t,
    ols_empty_class_t,
    ols_initial_t,
    ols_mode_t,
    ols_preset_t,
    ols_reduction_t,
    ols_status_t,
);
