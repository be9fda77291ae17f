//! The C ABI as C programs see it: compiled by C compilers, linked to the release build, run.
//!
//! `cargo test --test c_abi` runs all but the ones that take minutes; `cargo test --test c_abi -- --include-ignored` runs them too.

mod abi;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use abi::toolchain::{COMPILERS, Library, run, scratch};
use abi::{header, layout, root, text};

/// The programs of tests/c that need nothing but the library, each a test of its own.
macro_rules! programs {
    ($($name:ident),+ $(,)?) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),+];
        $(
            #[test]
            fn $name() {
                Library::release().test(stringify!($name));
            }
        )+
    };
}
programs!(arguments, conformance, dlpack, environment, files, forks, limits, passes, state_memory, tensors, threads, values);

fn write(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    path.to_owned()
}

/// Sizes, offsets and numbers are the same on both sides, in every language that reads the header.
#[test]
fn layout_is_the_same_in_c() {
    let (source, names) = layout::assertions();
    let folder = scratch("layout");
    let source = write(&folder.join("layout.c"), &source);
    for (at, compiler) in COMPILERS.into_iter().enumerate() {
        Library::release().compile::<&str>(compiler, std::slice::from_ref(&source), &folder.join(format!("layout{at}")), &[]);
    }
    // Every number of the header has its line.
    let header = text("include/ols.h");
    let code = header.split("#define OLS_H").nth(1).unwrap();
    for line in code.lines().map(str::trim) {
        let name = match line.strip_prefix("#define ") {
            Some(rest) => rest.split(' ').next().unwrap(),
            None if line.starts_with("OLS_") && line.contains(" = ") => line.split(' ').next().unwrap(),
            None => continue,
        };
        assert!(name.starts_with("OLS_VERSION") || names.contains(&name), "{name} has no assertion");
    }
}

/// The header compiles in every language, twice in one file, and in two files that are linked together.
#[test]
fn header_can_be_included_twice_and_from_two_files() {
    let folder = scratch("include");
    let one = write(
        &folder.join("one.c"),
        "#include <ols.h>\n#include <ols.h>\n#include <ols_dlpack.h>\n#include <ols_dlpack.h>\nint two(void);\n\
         int main(void) { return ols_abi_version() == OLS_ABI_VERSION && two() ? 0 : 1; }\n",
    );
    let two = write(
        &folder.join("two.c"),
        "#include <ols_dlpack.h>\nint two(void);\n\
         int two(void) { int x = 0; return ols_tensor_1d(&x, OLS_DTYPE_I32, 1).ndim == 1 && OLS_STATUS_PANIC == 255; }\n",
    );
    let library = Library::release();
    for (at, compiler) in COMPILERS.into_iter().enumerate() {
        let program = folder.join(format!("program{at}"));
        library.compile::<&str>(compiler, &[one.clone(), two.clone()], &program, &[]);
        library.run(&program, &[]);
    }
}

/// The example on the header's front page is examples/c/first.c; it compiles in C and runs, shared and static.
#[test]
fn first_example_runs_shared_and_static() {
    let library = Library::release();
    let folder = scratch("first");
    let source = [root("examples/c/first.c")];
    for compiler in COMPILERS.into_iter().filter(|(compiler, _)| *compiler != "g++") {
        let program = folder.join("shared");
        library.compile::<&str>(compiler, &source, &program, &[]);
        assert!(library.run(&program, &[]).starts_with("loss 0.7494"), "the loss is printed");
    }
    let program = folder.join("static");
    let archive = library.folder.join("libols.a").into_os_string().into_string().unwrap();
    let mut link = vec![archive];
    link.extend(header::native_static_libraries().split(' ').map(String::from));
    library.compile(("gcc", "-std=c99"), &source, &program, &link);
    assert!(run(&mut Command::new(&program)).starts_with("loss 0.7494"));
    let needed = run(Command::new("readelf").arg("-d").arg(&program));
    assert!(!needed.contains("libols"), "the static program needs no libols.so:\n{needed}");
}

/// All programs once more, the library and they with AddressSanitizer, they with UndefinedBehaviorSanitizer too; and panics, which only such a build has.
#[test]
#[ignore = "builds the library and all that it depends on once more, a minute or two"]
fn programs_under_sanitizers() {
    let library = Library::sanitized();
    // The sanitizer is really in, on both sides.
    assert!(run(Command::new("nm").arg("-D").arg(library.folder.join("libols.so"))).contains("__asan_"), "libols.so is not sanitized");
    for name in PROGRAMS.iter().copied().chain(["panics"]) {
        library.test(name);
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lib-sanitized-panics/panics");
    assert!(run(Command::new("nm").arg(program)).contains("__asan_init"), "the programs are not sanitized");
    // And it finds what it is there for, across the boundary: the library writes behind the end of a buffer that is too short for its tensor.
    let folder = scratch("overflow");
    let program = folder.join("overflow");
    library.compile::<&str>(("gcc", "-std=c99"), &[root("tests/c/overflow.c")], &program, &[]);
    let output = Command::new(&program).env("LD_LIBRARY_PATH", &library.folder).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("heap-buffer-overflow"), "the sanitizer finds nothing: {output:?}");
}

/// The release build under valgrind: no byte read that was never written, none lost.
#[test]
#[ignore = "valgrind is slow"]
fn programs_under_valgrind() {
    let library = Library::release();
    for name in ["arguments", "passes", "state_memory", "tensors", "values"] {
        let folder = scratch(&format!("valgrind-{name}"));
        let program = folder.join(name);
        library.compile::<&str>(("gcc", "-std=c99"), &[root(&format!("tests/c/{name}.c"))], &program, &[]);
        let options = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
        run(Command::new("valgrind").args(options).arg(&program).arg(&folder).env("LD_LIBRARY_PATH", &library.folder));
    }
}

/// `make build install` gives a tree that pkg-config finds and that programs build against, shared and static.
#[test]
#[ignore = "runs make"]
fn installed_tree_works() {
    let folder = scratch("installed");
    let prefix = folder.join("usr");
    run(Command::new("make").current_dir(root("")).args(["build", "install"]).arg(format!("PREFIX={}", prefix.display())));
    let asked = |arguments: &[&str]| {
        let answer = run(Command::new("pkg-config").args(arguments).arg("ols").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
        answer.split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(asked(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let program = folder.join("first");
    let build = |flags: Vec<String>| {
        run(Command::new("gcc").args(["-std=c99"]).arg(root("examples/c/first.c")).arg("-o").arg(&program).args(flags));
    };
    build(asked(&["--cflags", "--libs"]));
    assert!(run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib"))).starts_with("loss 0.7494"));
    // -lols prefers the shared library where both are there.
    fs::remove_file(prefix.join("lib/libols.so")).unwrap();
    build(asked(&["--cflags", "--libs", "--static"]));
    assert!(run(&mut Command::new(&program)).starts_with("loss 0.7494"));
}

/// examples/c/digits.c learns the digits.
#[test]
fn digits_example_learns() {
    let folder = scratch("digits");
    let data = folder.join("digits.csv");
    let compressed = root("examples/data/digits.csv.gz");
    let program = folder.join("digits");
    let library = Library::release();
    library.compile::<&str>(("gcc", "-std=c99"), &[root("examples/c/digits.c")], &program, &[]);
    run(Command::new("sh").arg("-c").arg("gzip -dc \"$1\" > \"$2\"").arg("sh").arg(&compressed).arg(&data));
    let printed = library.run(&program, &[data.as_os_str()]);
    let last = printed.lines().rfind(|line| line.starts_with("epoch")).expect("epochs are printed");
    let accuracy: f64 = last.split("accuracy ").nth(1).and_then(|rest| rest.split('%').next()).expect("accuracy").trim().parse().unwrap();
    assert!(accuracy > 90.0, "{printed}");
}
