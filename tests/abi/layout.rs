//! What Rust says about sizes, offsets and numbers, as C that compiles only where the C compiler says the same.

use std::fmt::Write;
use std::mem::offset_of;

use ols::capi::*;

/// A line that compiles in every C and C++ if `condition` holds.
fn assertion(text: &mut String, condition: &str) {
    let number = text.lines().count();
    writeln!(text, "typedef char layout_{number}[({condition}) ? 1 : -1];").unwrap();
}

macro_rules! structs {
    ($text:expr, $($name:ident { $($field:ident),+ $(,)? })+) => { $(
        // Names every field, or it does not compile.
        let _ = |$name { $($field: _),+ }: $name| ();
        assertion($text, &format!("sizeof({}) == {}", stringify!($name), size_of::<$name>()));
        $( assertion($text, &format!("offsetof({}, {}) == {}", stringify!($name), stringify!($field), offset_of!($name, $field))); )+
    )+ };
}

macro_rules! numbers {
    ($text:expr, $names:expr, $($name:ident)+) => { $(
        assertion($text, &format!("{} == {}", stringify!($name), i64::from($name)));
        $names.push(stringify!($name));
    )+ };
}

macro_rules! enums {
    ($text:expr, $names:expr, $($ty:ident { $($name:ident)+ })+) => { $(
        // Names every value, or it does not compile.
        let _ = |value: $ty| match value { $($ty::$name => ()),+ };
        assertion($text, &format!("sizeof({}) == {}", stringify!($ty), size_of::<$ty>()));
        $(
            assertion($text, &format!("{} == {}", stringify!($name), $ty::$name as i32));
            $names.push(stringify!($name));
        )+
    )+ };
}

/// A C source with all assertions, and the names of the numbers in it.
pub fn assertions() -> (String, Vec<&'static str>) {
    let mut source = String::from("#include <ols.h>\n#include <stddef.h>\n");
    let text = &mut source;
    let mut names = Vec::new();
    structs!(text,
        ols_tensor_t { data, device_type, device_id, dtype_code, dtype_bits, dtype_lanes, ndim, shape, strides, reserved }
        ols_batch_t { struct_size, logits, targets, sample_weights, targets2, lam, grad_loss, target_offset, stream, flags, reserved }
        ols_options_t {
            struct_size, num_classes, alpha, smoothing, momentum, freeze_above, min_count, ignore_index, initial, empty_class, reduction, mode,
            device_type, device_id, n_threads, flags, class_weights, initial_soft_labels, soft_labels, sums, counts, counters,
        }
        ols_statistics_t { struct_size, sums, counts, counters }
        ols_report_t {
            struct_size, epoch, rows_measured, rows_kept, rows_uniform, rows_initial, rows_one_hot, rows_zero, rows_frozen, samples_accumulated,
            samples_skipped, classes_full, targets_out_of_range, running_epoch, running_samples_accumulated, running_samples_skipped,
            running_classes_full, running_targets_out_of_range,
        }
    );
    numbers!(text, names,
        OLS_ABI_VERSION OLS_CODE_INT OLS_CODE_UINT OLS_CODE_FLOAT OLS_CODE_BFLOAT OLS_DEVICE_CPU OLS_DEVICE_CUDA OLS_DEVICE_CUDA_HOST
        OLS_DEVICE_CUDA_MANAGED OLS_OPTIONS_ADOPT_STATE OLS_BATCH_NO_UPDATE OLS_BATCH_TAKE_BACK OLS_FRACTION_BITS OLS_COUNTERS
        OLS_COUNTER_SKIPPED_NON_FINITE OLS_COUNTER_TARGETS_OUT_OF_RANGE OLS_COUNTER_TAKE_BACKS_REFUSED
    );
    enums!(text, names,
        ols_status_t {
            OLS_STATUS_OK OLS_STATUS_INVALID_ARGUMENT OLS_STATUS_INVALID_DTYPE OLS_STATUS_INVALID_SHAPE OLS_STATUS_INVALID_DEVICE
            OLS_STATUS_TARGET_OUT_OF_RANGE OLS_STATUS_INVALID_STATE OLS_STATUS_UNSUPPORTED OLS_STATUS_OUT_OF_MEMORY OLS_STATUS_IO
            OLS_STATUS_INVALID_FILE OLS_STATUS_CUDA OLS_STATUS_PANIC
        }
        ols_dtype_t { OLS_DTYPE_F32 OLS_DTYPE_F64 OLS_DTYPE_F16 OLS_DTYPE_BF16 OLS_DTYPE_I64 OLS_DTYPE_I32 OLS_DTYPE_U8 }
        ols_initial_t { OLS_INITIAL_SMOOTHING OLS_INITIAL_UNIFORM OLS_INITIAL_ZERO OLS_INITIAL_ONE_HOT OLS_INITIAL_MATRIX }
        ols_empty_class_t {
            OLS_EMPTY_CLASS_KEEP OLS_EMPTY_CLASS_UNIFORM OLS_EMPTY_CLASS_INITIAL OLS_EMPTY_CLASS_ONE_HOT OLS_EMPTY_CLASS_ZERO
        }
        ols_reduction_t { OLS_REDUCTION_NONE OLS_REDUCTION_MEAN OLS_REDUCTION_SUM }
        ols_mode_t { OLS_MODE_TRAIN OLS_MODE_EVAL }
        ols_preset_t { OLS_PRESET_REFERENCE OLS_PRESET_PAPER }
    );
    source += "int main(void) { return 0; }\n";
    (source, names)
}
