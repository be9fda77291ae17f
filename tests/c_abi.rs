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
programs!(arguments, dlpack, environment, files, forks, limits, passes, state_memory, tensors, threads, values);

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
