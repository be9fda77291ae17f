//! A criterion on a CUDA device through the C ABI, with the tensors of the conformance cases.

use std::ffi::{CStr, c_void};

use ols::capi::*;
use ols::{DType, Options, Update};

use crate::standin::{DeviceMemory, Standin};
use crate::support::buffer::Buffer;
use crate::support::model::{CaseBatch, View};
use crate::support::oracle::dtype_of_loss;
use crate::support::runner::{Outputs, State, Tensors};

/// A status other than OK, with its message.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub status: ols_status_t,
    pub text: String,
}

pub type Result<T> = std::result::Result<T, Failure>;

pub fn checked(status: ols_status_t) -> Result<()> {
    if status == ols_status_t::OLS_STATUS_OK {
        return Ok(());
    }
    // SAFETY: never NULL, and valid until this thread's next call.
    let text = unsafe { CStr::from_ptr(ols_last_error()) }.to_str().unwrap().to_owned();
    Err(Failure { status, text })
}

/// The type code and bits of `DLDataType`.
fn dtype(dtype: DType) -> (u8, u8) {
    match dtype {
        DType::F32 => (OLS_CODE_FLOAT, 32),
        DType::F64 => (OLS_CODE_FLOAT, 64),
        DType::F16 => (OLS_CODE_FLOAT, 16),
        DType::Bf16 => (OLS_CODE_BFLOAT, 16),
        DType::I64 => (OLS_CODE_INT, 64),
        DType::I32 => (OLS_CODE_INT, 32),
        DType::U8 => (OLS_CODE_UINT, 8),
        other => unreachable!("{other}"),
    }
}

/// A tensor that is not given.
pub fn absent() -> ols_tensor_t {
    // SAFETY: numbers and a pointer, all of which may be 0.
    unsafe { std::mem::zeroed() }
}

/// The tensor of `view` in memory of `device`.
pub fn tensor(data: *mut u8, of: DType, view: &View, device: i32) -> ols_tensor_t {
    let (dtype_code, dtype_bits) = dtype(of);
    let mut tensor = ols_tensor_t {
        data: data.wrapping_add(view.offset * of.size()).cast(),
        device_type: OLS_DEVICE_CUDA,
        device_id: device,
        dtype_code,
        dtype_bits,
        dtype_lanes: 1,
        ndim: view.shape.len() as i32,
        ..absent()
    };
    for (d, (&size, stride)) in view.shape.iter().zip(view.strides()).enumerate() {
        tensor.shape[d] = size as i64;
        tensor.strides[d] = stride as i64;
    }
    tensor
}

fn bytes(buffer: &Buffer) -> &[u8] {
    match buffer {
        Buffer::F32(v) => bytemuck::cast_slice(v),
        Buffer::F64(v) => bytemuck::cast_slice(v),
        Buffer::F16(v) => bytemuck::cast_slice(v),
        Buffer::Bf16(v) => bytemuck::cast_slice(v),
        Buffer::I64(v) => bytemuck::cast_slice(v),
        Buffer::I32(v) => bytemuck::cast_slice(v),
        Buffer::U8(v) => v,
    }
}

fn buffer(dtype: DType, bytes: &[u8]) -> Buffer {
    match dtype {
        DType::F32 => Buffer::F32(bytemuck::pod_collect_to_vec(bytes)),
        DType::F64 => Buffer::F64(bytemuck::pod_collect_to_vec(bytes)),
        DType::F16 => Buffer::F16(bytemuck::pod_collect_to_vec(bytes)),
        DType::Bf16 => Buffer::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        DType::I64 => Buffer::I64(bytemuck::pod_collect_to_vec(bytes)),
        DType::I32 => Buffer::I32(bytemuck::pod_collect_to_vec(bytes)),
        DType::U8 => Buffer::U8(bytes.to_vec()),
        other => unreachable!("{other}"),
    }
}

/// A buffer in device memory, seen through a view.
pub struct OnDevice {
    pub memory: DeviceMemory,
    dtype: DType,
    view: View,
}

impl OnDevice {
    pub fn new(from: &Buffer, dtype: DType, view: &View) -> Self {
        Self { memory: DeviceMemory::from(bytes(from)), dtype, view: view.clone() }
    }

    pub fn tensor(&self, device: i32) -> ols_tensor_t {
        tensor(self.memory.pointer(), self.dtype, &self.view, device)
    }

    /// The contents of the buffer, once the stand-in has run all queued work.
    pub fn back(&self) -> (Buffer, View) {
        (buffer(self.dtype, self.memory.bytes()), self.view.clone())
    }
}

/// A batch in device memory.
pub struct BatchOnDevice {
    pub logits: OnDevice,
    others: [Option<OnDevice>; 5],
    target_offset: i64,
}

impl BatchOnDevice {
    pub fn new(batch: &CaseBatch) -> Self {
        let tensors = Tensors::new(batch);
        let integers =
            |it: &crate::support::model::Targets| OnDevice::new(&Buffer::integers(it.dtype.0, &it.view, &it.values), it.dtype.0, &it.view);
        let numbers = |it: &Option<crate::support::model::Numbers>| {
            let it = it.as_ref()?;
            let values: Vec<f64> = it.values.iter().map(|value| value.0).collect();
            Some(OnDevice::new(&Buffer::numbers(it.dtype.0, &it.view, &values), it.dtype.0, &it.view))
        };
        Self {
            logits: OnDevice::new(&tensors.logits, batch.logits.dtype.0, &batch.logits.view),
            others: [
                Some(integers(&batch.targets)),
                numbers(&batch.sample_weights),
                batch.targets2.as_ref().map(integers),
                numbers(&batch.lam),
                numbers(&batch.grad_loss),
            ],
            target_offset: batch.target_offset,
        }
    }

    pub fn raw(&self, update: Update, device: i32, stream: *mut c_void) -> ols_batch_t {
        // SAFETY: numbers and pointers, all of which may be 0.
        let mut raw: ols_batch_t = unsafe { std::mem::zeroed() };
        let given = |at: usize| self.others[at].as_ref().map_or(absent(), |it| it.tensor(device));
        raw.struct_size = size_of::<ols_batch_t>();
        raw.logits = self.logits.tensor(device);
        (raw.targets, raw.sample_weights, raw.targets2, raw.lam, raw.grad_loss) = (given(0), given(1), given(2), given(3), given(4));
        raw.target_offset = self.target_offset;
        raw.stream = stream;
        raw.flags = match update {
            Update::Add => 0,
            Update::None => OLS_BATCH_NO_UPDATE,
            Update::TakeBack => OLS_BATCH_TAKE_BACK,
        };
        raw
    }
}

/// The options as a C struct; its tensors point into `options`.
pub fn raw_options(options: &Options) -> ols_options_t {
    use ols::{EmptyClass, Initial, Mode, Reduction};
    // SAFETY: numbers and pointers, all of which may be 0; then initialised by the library.
    let mut raw: ols_options_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable struct.
    checked(unsafe { ols_options_init(&mut raw, size_of::<ols_options_t>()) }).unwrap();
    raw.num_classes = options.classes as i64;
    raw.alpha = options.alpha;
    raw.momentum = options.momentum;
    raw.freeze_above = options.freeze_above.unwrap_or(f64::INFINITY);
    raw.min_count = options.min_count;
    raw.ignore_index = options.ignore_index;
    let on_host = |data: *const u8, of: DType, shape: &[usize]| ols_tensor_t {
        device_type: OLS_DEVICE_CPU,
        ..tensor(data.cast_mut(), of, &View::new(shape), 0)
    };
    raw.initial = match &options.initial {
        Initial::Smoothing(eps) => {
            raw.smoothing = *eps;
            0
        }
        Initial::Uniform => 1,
        Initial::Zero => 2,
        Initial::OneHot => 3,
        Initial::Matrix(matrix) => {
            let side = matrix.len().isqrt();
            let shape = if side * side == matrix.len() { vec![side, side] } else { vec![matrix.len()] };
            raw.initial_soft_labels = on_host(matrix.as_ptr().cast(), DType::F32, &shape);
            4
        }
        other => unreachable!("{other:?}"),
    };
    raw.empty_class = match options.empty_class {
        EmptyClass::Keep => 0,
        EmptyClass::Uniform => 1,
        EmptyClass::Initial => 2,
        EmptyClass::OneHot => 3,
        EmptyClass::Zero => 4,
        other => unreachable!("{other:?}"),
    };
    raw.reduction = match options.reduction {
        Reduction::None => 0,
        Reduction::Mean => 1,
        Reduction::Sum => 2,
    };
    raw.mode = i32::from(options.mode == Mode::Eval);
    if let Some(weights) = &options.class_weights {
        raw.class_weights = on_host(weights.as_ptr().cast(), DType::F64, &[weights.len()]);
    }
    raw
}

/// A criterion on a device.
pub struct CudaCriterion {
    pub handle: *mut ols_criterion_t,
    pub options: Options,
    pub device: i32,
    pub stream: *mut c_void,
}

impl CudaCriterion {
    pub fn new(options: &Options) -> Result<Self> {
        Self::on(options, 0)
    }

    pub fn on(options: &Options, device: i32) -> Result<Self> {
        let mut raw = raw_options(options);
        raw.device_type = OLS_DEVICE_CUDA;
        raw.device_id = device;
        Self::from_raw(&raw, options)
    }

    pub fn from_raw(raw: &ols_options_t, options: &Options) -> Result<Self> {
        let mut handle = std::ptr::null_mut::<ols_criterion_t>();
        // SAFETY: initialised options, and a pointer to write to.
        checked(unsafe { ols_create(raw, (&raw mut handle).cast()) })?;
        Ok(Self { handle, options: options.clone(), device: raw.device_id, stream: std::ptr::null_mut() })
    }

    /// Enqueues a forward pass.
    pub fn enqueue(
        &mut self,
        batch: &BatchOnDevice,
        update: Update,
        loss: Option<&ols_tensor_t>,
        grad: Option<&ols_tensor_t>,
    ) -> Result<()> {
        let raw = batch.raw(update, self.device, self.stream);
        let pointer = |tensor: Option<&ols_tensor_t>| tensor.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: a live criterion, and tensors on its device that live as long as the test.
        checked(unsafe { ols_forward(self.handle, &raw, pointer(loss), pointer(grad)) })
    }

    pub fn forward(
        &mut self,
        standin: &Standin,
        batch: &CaseBatch,
        update: Update,
        loss: &Option<View>,
        grad: &Option<View>,
        in_place: bool,
    ) -> (Result<()>, Outputs) {
        let on_device = BatchOnDevice::new(batch);
        let dtype = batch.logits.dtype.0;
        let fresh =
            |dtype, view: &Option<View>| view.as_ref().map(|view| OnDevice::new(&Buffer::unused(dtype, view.length()), dtype, view));
        let (loss, grad) = (fresh(dtype_of_loss(dtype), loss), if in_place { None } else { fresh(dtype, grad) });
        let loss_tensor = loss.as_ref().map(|it| it.tensor(self.device));
        let grad_tensor =
            if in_place { Some(on_device.logits.tensor(self.device)) } else { grad.as_ref().map(|it| it.tensor(self.device)) };
        let result = self.enqueue(&on_device, update, loss_tensor.as_ref(), grad_tensor.as_ref());
        standin.wait();
        let grad = if in_place { Some(on_device.logits.back()) } else { grad.map(|it| it.back()) };
        (result, Outputs { loss: loss.map(|it| it.back()), grad })
    }

    pub fn backward(&mut self, standin: &Standin, batch: &CaseBatch, grad: &View) -> (Result<()>, Outputs) {
        let on_device = BatchOnDevice::new(batch);
        let dtype = batch.logits.dtype.0;
        let grad = OnDevice::new(&Buffer::unused(dtype, grad.length()), dtype, grad);
        let raw = on_device.raw(Update::Add, self.device, self.stream);
        // SAFETY: as in `enqueue`.
        let result = checked(unsafe { ols_backward(self.handle, &raw, std::ptr::null(), &grad.tensor(self.device)) });
        standin.wait();
        (result, Outputs { loss: None, grad: Some(grad.back()) })
    }

    pub fn accumulate(&mut self, standin: &Standin, batch: &CaseBatch, update: Update) -> Result<()> {
        let on_device = BatchOnDevice::new(batch);
        let raw = on_device.raw(update, self.device, self.stream);
        // SAFETY: as in `enqueue`.
        let result = checked(unsafe { ols_accumulate(self.handle, &raw) });
        standin.wait();
        result
    }

    pub fn next_epoch(&mut self) -> Result<()> {
        // SAFETY: a live criterion.
        checked(unsafe { ols_next_epoch(self.handle, self.stream) })
    }

    pub fn set_mode(&mut self, mode: ols::Mode) {
        // SAFETY: a live criterion.
        checked(unsafe { ols_set_mode(self.handle, i32::from(mode == ols::Mode::Eval)) }).unwrap();
    }

    pub fn set_alpha(&mut self, alpha: f64) -> Result<()> {
        // SAFETY: a live criterion.
        checked(unsafe { ols_set_alpha(self.handle, alpha) })
    }

    pub fn set_soft_labels(&mut self, standin: &Standin, values: &[f32]) -> Result<()> {
        let classes = self.options.classes;
        let matrix = OnDevice::new(&Buffer::F32(values.to_vec()), DType::F32, &View::new(&[classes, classes]));
        // SAFETY: a live criterion, and a matrix that stays until the stand-in has run all.
        let result = checked(unsafe { ols_set_soft_labels(self.handle, &matrix.tensor(self.device), self.stream) });
        standin.wait();
        result
    }

    pub fn report(&self) -> Result<ols_report_t> {
        // SAFETY: numbers.
        let mut report: ols_report_t = unsafe { std::mem::zeroed() };
        report.struct_size = size_of::<ols_report_t>();
        // SAFETY: a live criterion, and a struct to write.
        checked(unsafe { ols_report(self.handle, self.stream, &mut report) }).map(|()| report)
    }

    pub fn epoch(&self) -> i64 {
        let mut epoch = 0;
        // SAFETY: a live criterion, and a number to write.
        checked(unsafe { ols_epoch(self.handle, &mut epoch) }).unwrap();
        epoch
    }

    /// Views of S, A, c and the counters.
    pub fn views(&self) -> [ols_tensor_t; 4] {
        let mut soft_labels = absent();
        // SAFETY: numbers.
        let mut statistics: ols_statistics_t = unsafe { std::mem::zeroed() };
        statistics.struct_size = size_of::<ols_statistics_t>();
        // SAFETY: a live criterion, and structs to write.
        unsafe {
            checked(ols_soft_labels(self.handle, &mut soft_labels)).unwrap();
            checked(ols_statistics(self.handle, &mut statistics)).unwrap();
        }
        [soft_labels, statistics.sums, statistics.counts, statistics.counters]
    }

    /// S, A, c and the counters, read in place.
    pub fn state(&self, standin: &Standin) -> State {
        standin.wait();
        fn read<T: Copy>(view: &ols_tensor_t) -> Vec<T> {
            let (rows, columns, stride) =
                if view.ndim == 1 { (1, view.shape[0], 0) } else { (view.shape[0], view.shape[1], view.strides[0]) };
            let at = |row: i64, column: i64| view.data.cast::<T>().wrapping_offset((row * stride + column) as isize);
            // SAFETY: memory of the stand-in, which is host memory; nothing runs.
            (0..rows).flat_map(|row| (0..columns).map(move |column| unsafe { at(row, column).read() })).collect()
        }
        let [soft_labels, sums, counts, counters] = self.views();
        for view in [soft_labels, sums, counts, counters] {
            assert_eq!((view.device_type, view.device_id), (OLS_DEVICE_CUDA, self.device));
        }
        State { soft_labels: read(&soft_labels), sums: read(&sums), counts: read(&counts), samples_skipped: read::<i64>(&counters)[0] }
    }

    pub fn counters(&self, standin: &Standin) -> [i64; 4] {
        standin.wait();
        // SAFETY: as in `state`.
        unsafe { self.views()[3].data.cast::<[i64; 4]>().read() }
    }

    pub fn save(&self) -> Vec<u8> {
        let mut size = 0;
        // SAFETY: a live criterion, a number to write, and as much memory as is said.
        unsafe {
            checked(ols_save_memory(self.handle, std::ptr::null_mut(), 0, self.stream, &mut size)).unwrap();
            let mut bytes = vec![0u8; size];
            checked(ols_save_memory(self.handle, bytes.as_mut_ptr().cast(), size, self.stream, &mut size)).unwrap();
            bytes
        }
    }

    pub fn load(&mut self, bytes: &[u8]) -> Result<()> {
        // SAFETY: a live criterion, and readable bytes.
        checked(unsafe { ols_load_memory(self.handle, bytes.as_ptr().cast(), bytes.len(), self.stream) })
    }
}

impl Drop for CudaCriterion {
    fn drop(&mut self) {
        // SAFETY: created by `ols_create` and destroyed once; a handle is a box of one pointer.
        unsafe {
            ols_destroy(std::mem::transmute::<*mut ols_criterion_t, Option<safer_ffi::prelude::repr_c::Box<ols_criterion_t>>>(self.handle))
        };
    }
}
