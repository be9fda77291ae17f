//! The tests once more under sanitizers, and the program that does so on a GPU.

use ols::{DType, Options, Update};

use crate::device::{CudaCriterion, tensor};
use crate::fixture::Fixture;
use crate::standin::{DeviceMemory, Standin};
use crate::support::model::View;

/// Runs tests that together launch every kernel once more under AddressSanitizer and UndefinedBehaviorSanitizer,
/// which cover the kernels and all device memory.
#[test]
fn cuda_under_sanitizers() {
    if std::env::var_os(crate::standin::SANITIZED).is_some() {
        return;
    }
    drop(Standin::new());
    crate::standin::build(true);
    let runtime = std::process::Command::new("g++").arg("-print-file-name=libasan.so").output().unwrap();
    let runtime = String::from_utf8(runtime.stdout).unwrap();
    let answer = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--test-threads=1",
            "conformance_layouts",
            "callers",
            "full_classes",
            "long_rows",
            "probabilities",
            "saved",
            "paths",
            "usual",
            "within_their_tensors",
            "--skip=very_long",
            "--skip=on_the_grid",
            "--skip=in_every_kernel",
        ])
        .env(crate::standin::SANITIZED, "1")
        .env("PROPTEST_CASES", "10")
        .env("LD_PRELOAD", runtime.trim())
        // Fibers leave their stacks by longjmp, and globals of the test program are never freed.
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    assert!(answer.status.success(), "{text}");
    assert!(text.contains("test result: ok"), "{text}");
}

/// The sanitizer does detect errors: here, a gradient that is longer than its memory.
#[test]
fn cuda_sanitizer_finds_writes_behind_the_end() {
    const CHILD: &str = "OLS_TEST_OVERFLOW";
    if std::env::var_os(CHILD).is_some() {
        let standin = Standin::new();
        let mut criterion = CudaCriterion::new(&Options::new(5)).unwrap();
        let fixture = Fixture::new(4, 5, 1);
        let short = DeviceMemory::new(4 * 5 * 4 - 4);
        let grad = tensor(short.pointer(), DType::F32, &View::new(&[4, 5]), 0);
        criterion.enqueue(&fixture.batch, Update::Add, None, Some(&grad)).unwrap();
        standin.wait();
        return;
    }
    if std::env::var_os(crate::standin::SANITIZED).is_some() {
        return;
    }
    crate::standin::build(true);
    let runtime = std::process::Command::new("g++").arg("-print-file-name=libasan.so").output().unwrap();
    let answer = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--test-threads=1", "sanitizer_finds"])
        .env(crate::standin::SANITIZED, "1")
        .env(CHILD, "1")
        .env("LD_PRELOAD", String::from_utf8(runtime.stdout).unwrap().trim())
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(!answer.status.success() && text.contains("heap-buffer-overflow"), "{text}");
}

/// The program for GPU machines is at least valid: its Python compiles, and the part that needs neither PyTorch nor a
/// GPU runs on the stand-in.
#[test]
fn cuda_check_program_runs_on_the_standin() {
    use std::process::Command;
    let root = crate::standin::root();
    let answer = Command::new(env!("CARGO")).current_dir(&root).args(["build", "--release", "--lib"]).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let standin = crate::standin::build(false);
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink(&standin, folder.path().join(name)).unwrap();
    }
    let library = target.join("release/libols.so");
    let sanitized = vec![root.join("cuda/checking/sanitized.py").into_os_string(), library.into_os_string(), "--quick".into()];
    let compile =
        ["-c".into(), "import ast, pathlib, sys\nfor path in sys.argv[1:]: ast.parse(pathlib.Path(path).read_text(), path)".into()];
    let sources = std::fs::read_dir(root.join("cuda/checking")).unwrap().map(|entry| entry.unwrap().path());
    let sources =
        sources.filter(|path| path.extension().is_some_and(|it| it == "py")).chain([root.join("cuda/check"), root.join("cuda/build")]);
    let compile: Vec<std::ffi::OsString> = compile.into_iter().chain(sources.map(std::path::PathBuf::into_os_string)).collect();
    for (arguments, wanted) in [(compile, vec![]), (sanitized, vec!["default: 23 cases", "plain: 19 cases"])] {
        let answer =
            Command::new("python3").arg("-B").args(&arguments).env("LD_LIBRARY_PATH", folder.path()).output().expect("python3 runs");
        let printed = String::from_utf8_lossy(&answer.stdout);
        assert!(answer.status.success(), "{printed}{}", String::from_utf8_lossy(&answer.stderr));
        assert!(wanted.iter().all(|text| printed.contains(text)), "{printed}");
    }
}
