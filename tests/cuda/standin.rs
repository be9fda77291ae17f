//! The stand-in for libcuda: built from cuda/tests with g++, loaded in place of the driver, and queried about what
//! happened.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ols::{DType, Device, TensorMut, TensorRef};

/// Set by the test that runs the others under AddressSanitizer.
pub const SANITIZED: &str = "OLS_TEST_SANITIZED_STANDIN";

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// CRC-32 over the name and the content of each source file of the kernels, as computed by cuda/build.
pub fn sources() -> String {
    checksum(&[root().join("cuda/kernels")])
}

fn checksum(folders: &[PathBuf]) -> String {
    let mut crc = crc32fast::Hasher::new();
    for folder in folders {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            crc.update(file.file_name().unwrap().to_string_lossy().as_bytes());
            crc.update(b"\n");
            crc.update(&std::fs::read(file).unwrap());
        }
    }
    format!("{:08x}", crc.finalize())
}

/// Compiles the stand-in, once per version of its sources.
pub fn build(sanitized: bool) -> PathBuf {
    let sources = checksum(&[root().join("cuda/kernels"), root().join("cuda/tests")]);
    let name = format!("standin-{sources}{}.so", if sanitized { "-sanitized" } else { "" });
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if library.exists() {
        return library;
    }
    let unfinished = library.with_extension(format!("{}.tmp", std::process::id()));
    let mut command = Command::new("g++");
    command.arg(if sanitized { "-O1" } else { "-O2" });
    command.args([
        "-std=c++17",
        "-g1",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-parameter",
        "-Wno-unused-function",
    ]);
    command.args(["-fPIC", "-shared", "-pthread", "-Wl,-soname,libcuda.so"]);
    if sanitized {
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]);
    }
    let answer = command.arg("-o").arg(&unfinished).arg(root().join("cuda/tests/libcuda.cpp")).output().expect("g++ runs");
    assert!(answer.status.success(), "the stand-in does not compile:\n{}", String::from_utf8_lossy(&answer.stderr));
    std::fs::rename(unfinished, &library).unwrap();
    library
}

/// A function of the stand-in.
fn function<F: Copy>(name: &str) -> F {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    let library = *LIBRARY.get_or_init(|| {
        let path = CString::new(build(std::env::var_os(SANITIZED).is_some()).into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: our own library, which has no constructors. Its SONAME is libcuda.so, so later lookups of that name
        // find it.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        // SAFETY: dlerror returns a string after a failure.
        assert!(!library.is_null(), "{:?}", unsafe { CStr::from_ptr(libc::dlerror()) });
        library as usize
    });
    let text = CString::new(name).unwrap();
    // SAFETY: the library stays loaded, and the caller names the function's type as declared in
    // cuda/tests/libcuda.cpp.
    unsafe {
        let address = libc::dlsym(library as *mut c_void, text.as_ptr());
        assert!(!address.is_null(), "the stand-in has no {name}");
        std::mem::transmute_copy(&address)
    }
}

/// Exclusive access to the stand-in, reset to its initial state, for one test at a time.
pub struct Standin {
    _alone: MutexGuard<'static, ()>,
}

type Status = c_int;

impl Standin {
    pub fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let this = Self { _alone: alone };
        for (name, value) in [
            ("device_count", 2),
            ("driver_version", 12_000),
            ("capability", 90),
            ("shared_limit", 227 * 1024),
            ("memory_limit", 1 << 40),
            ("seed", 0),
            ("workers", 1),
            ("multiprocessors", 3),
            ("spoils", 1),
            ("earlier_error", 0),
        ] {
            this.set(name, value);
        }
        this.path("");
        this.kernels();
        this.enter(0);
        this
    }

    pub fn set(&self, name: &str, value: i64) {
        let name = CString::new(name).unwrap();
        // SAFETY: a function of the stand-in, with the type it is declared with; likewise below.
        unsafe { function::<unsafe extern "C" fn(*const c_char, c_longlong)>("standin_set")(name.as_ptr(), value) };
    }

    /// Sets OLS_CUDA_PATH, which selects the kernels of criteria created from now on.
    pub fn path(&self, name: &str) {
        // SAFETY: the environment of this process is only read through the standard library, which has a lock for it;
        // compilers started by tests run in their own processes.
        unsafe { std::env::set_var("OLS_CUDA_PATH", name) };
    }

    pub fn get(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: as above.
        unsafe { function::<unsafe extern "C" fn(*const c_char) -> c_longlong>("standin_get")(name.as_ptr()) }
    }

    /// Sizes, offsets and constants of the kernels by name.
    pub fn layout(&self) -> BTreeMap<String, usize> {
        // SAFETY: as above; the string is constant.
        let text = unsafe { CStr::from_ptr(function::<unsafe extern "C" fn() -> *const c_char>("standin_layout")()) };
        let pairs = text.to_str().unwrap().lines().map(|line| line.split_once(' ').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// The kernels launched since the last call.
    pub fn kernels(&self) -> Vec<String> {
        // SAFETY: as above; the string stays until the next call.
        let text = unsafe { CStr::from_ptr(function::<unsafe extern "C" fn() -> *const c_char>("standin_kernels")()) };
        text.to_str().unwrap().split_whitespace().map(String::from).collect()
    }

    /// Makes the primary context of a device current, as PyTorch does.
    pub fn enter(&self, device: c_int) {
        let mut context = std::ptr::null_mut();
        // SAFETY: as above.
        unsafe {
            assert_eq!(function::<unsafe extern "C" fn(c_uint) -> Status>("cuInit")(0), 0);
            assert_eq!(
                function::<unsafe extern "C" fn(*mut *mut c_void, c_int) -> Status>("cuDevicePrimaryCtxRetain")(&mut context, device),
                0
            );
            assert_eq!(function::<unsafe extern "C" fn(c_int) -> Status>("cuDevicePrimaryCtxRelease_v2")(device), 0);
        }
        self.set_current(context);
    }

    pub fn current(&self) -> *mut c_void {
        let mut context = std::ptr::null_mut();
        // SAFETY: as above.
        assert_eq!(unsafe { function::<unsafe extern "C" fn(*mut *mut c_void) -> Status>("cuCtxGetCurrent")(&mut context) }, 0);
        context
    }

    pub fn set_current(&self, context: *mut c_void) {
        // SAFETY: as above.
        assert_eq!(unsafe { function::<unsafe extern "C" fn(*mut c_void) -> Status>("cuCtxSetCurrent")(context) }, 0);
    }

    /// Runs all queued work.
    pub fn wait(&self) {
        // SAFETY: as above.
        assert_eq!(unsafe { function::<unsafe extern "C" fn() -> Status>("cuCtxSynchronize")() }, 0);
    }

    /// A new stream in the current context.
    pub fn stream(&self) -> *mut c_void {
        let mut stream = std::ptr::null_mut();
        // SAFETY: as above.
        assert_eq!(unsafe { function::<unsafe extern "C" fn(*mut *mut c_void, c_uint) -> Status>("cuStreamCreate")(&mut stream, 1) }, 0);
        stream
    }

    /// Captures what `body` enqueues on `stream` as a graph.
    pub fn capture(&self, stream: *mut c_void, body: impl FnOnce()) -> *mut c_void {
        let mut graph = std::ptr::null_mut();
        // SAFETY: as above.
        unsafe {
            assert_eq!(function::<unsafe extern "C" fn(*mut c_void, c_int) -> Status>("cuStreamBeginCapture_v2")(stream, 0), 0);
            body();
            assert_eq!(
                function::<unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> Status>("cuStreamEndCapture")(stream, &mut graph),
                0
            );
        }
        graph
    }

    pub fn replay(&self, graph: *mut c_void, stream: *mut c_void) {
        // SAFETY: as above.
        assert_eq!(unsafe { function::<unsafe extern "C" fn(*mut c_void, *mut c_void) -> Status>("cuGraphLaunch")(graph, stream) }, 0);
    }

    pub fn destroy_graph(&self, graph: *mut c_void) {
        // SAFETY: as above.
        assert_eq!(unsafe { function::<unsafe extern "C" fn(*mut c_void) -> Status>("cuGraphDestroy")(graph) }, 0);
    }
}

/// The first device.
pub const DEVICE: Device = Device::cuda(0);

/// Memory of the current device, which is host memory allocated by the stand-in.
pub struct DeviceMemory {
    address: u64,
    bytes: usize,
}

impl DeviceMemory {
    pub fn new(bytes: usize) -> Self {
        let mut address = 0;
        // SAFETY: as above.
        let status = unsafe { function::<unsafe extern "C" fn(*mut u64, usize) -> Status>("cuMemAlloc_v2")(&mut address, bytes.max(1)) };
        assert_eq!(status, 0);
        Self { address, bytes }
    }

    pub fn from(bytes: &[u8]) -> Self {
        let this = Self::new(bytes.len());
        // SAFETY: that many bytes of host memory, which no queued work refers to yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), this.pointer(), bytes.len()) };
        this
    }

    pub fn pointer(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// A tensor on the first device, to be read.
    pub fn view(&self, dtype: DType, shape: &[usize]) -> TensorRef<'_> {
        let elements: usize = shape.iter().product();
        assert!(elements * dtype.size() <= self.bytes);
        // SAFETY: memory of that size, which lives as long as the view.
        unsafe { TensorRef::from_raw(self.pointer().cast(), dtype, DEVICE, shape, None).unwrap() }
    }

    /// A tensor on the first device, to be written.
    pub fn output(&self, dtype: DType, shape: &[usize]) -> TensorMut<'_> {
        let elements: usize = shape.iter().product();
        assert!(elements * dtype.size() <= self.bytes);
        // SAFETY: as above; the stand-in writes it while somebody waits, and nobody reads it then.
        unsafe { TensorMut::from_raw(self.pointer().cast(), dtype, DEVICE, shape, None).unwrap() }
    }

    /// Sets every byte; wait for queued work first.
    pub fn fill(&self, byte: u8) {
        // SAFETY: that many bytes of host memory; work only runs inside calls that wait.
        unsafe { std::ptr::write_bytes(self.pointer(), byte, self.bytes) };
    }

    /// The present contents; wait for queued work first.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: that many bytes of host memory; work only runs inside calls that wait.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.bytes) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: as above. A wrong context is no reason to panic while panicking.
        let _ = unsafe { function::<unsafe extern "C" fn(u64) -> Status>("cuMemFree_v2")(self.address) };
    }
}
