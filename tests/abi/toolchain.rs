//! C compilers, the library as a user would have it installed, and programs over both.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::root;

/// A compiler and the language that it is told. A missing one is a failure: `apt-get install gcc g++ clang-19`.
pub const COMPILERS: [(&str, &str); 6] =
    [("gcc", "-std=c99"), ("gcc", "-std=c11"), ("gcc", "-std=c2x"), ("clang-19", "-std=c23"), ("g++", "-std=c++11"), ("g++", "-std=c++17")];

/// All warnings, none allowed.
pub const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// An empty folder for one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command that must succeed; what it printed.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}{err}");
    format!("{out}{err}")
}

/// The name by which programs look for a library that they were linked against.
pub fn soname(library: &Path) -> String {
    run(Command::new(root("packaging/soname")).arg(library)).trim().to_owned()
}

/// A folder with libols.so, the same under its SONAME, and libols.a, as an installation has them.
#[derive(Clone, Debug)]
pub struct Library {
    pub folder: PathBuf,
    /// What the programs over it are compiled with besides.
    pub flags: Vec<&'static str>,
}

impl Library {
    /// The release build.
    pub fn release() -> &'static Self {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| {
            let target = root(&std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into()));
            run(Command::new(env!("CARGO")).current_dir(root("")).args(["build", "--release", "--lib"]));
            Self::install(&target.join("release"), "release", vec!["-O2", "-g"])
        })
    }

    /// A build with AddressSanitizer and the entry points of src/capi/hooks.rs.
    pub fn sanitized() -> Self {
        const TRIPLE: &str = "x86_64-unknown-linux-gnu";
        let target = root("target/sanitized");
        run(Command::new(env!("CARGO"))
            .current_dir(root(""))
            .args(["build", "--lib", "--target", TRIPLE, "--target-dir"])
            .arg(&target)
            // -Zsanitizer is unstable, but works on the stable compiler when told so.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Zsanitizer=address --cfg ols_test_hooks")
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1"));
        let flags =
            vec!["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-DOLS_TEST_HOOKS"];
        Self::install(&target.join(TRIPLE).join("debug"), "sanitized", flags)
    }

    fn install(from: &Path, name: &str, flags: Vec<&'static str>) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lib-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let soname = soname(&from.join("libols.so"));
        for (file, to) in [("libols.so", "libols.so"), ("libols.so", soname.as_str()), ("libols.a", "libols.a")] {
            // By a name of its own first: another test binary may be running over the one that is there.
            let temporary = folder.join(format!(".{to}.{}", std::process::id()));
            fs::copy(from.join(file), &temporary).unwrap_or_else(|error| panic!("{file}: {error}"));
            fs::rename(&temporary, folder.join(to)).unwrap();
        }
        Self { folder, flags }
    }

    /// Compiles `sources` against the header and links them to the shared library, or to the objects and flags of `link`.
    pub fn compile<S: AsRef<OsStr>>(&self, compiler: (&str, &str), sources: &[PathBuf], out: &Path, link: &[S]) {
        let (compiler, standard) = compiler;
        let mut command = Command::new(compiler);
        command
            .args([standard, "-D_GNU_SOURCE"])
            .args(STRICT)
            .args(&self.flags)
            .arg("-I")
            .arg(root("include"))
            .arg("-I")
            .arg(root("tests/c"));
        if compiler == "g++" {
            // The sources are C; what follows them is not.
            command.args(["-x", "c++"]).args(sources).args(["-x", "none"]);
        } else {
            command.args(sources);
        }
        command.arg("-o").arg(out);
        if link.is_empty() {
            command.arg("-L").arg(&self.folder).arg("-lols");
        }
        run(command.args(link).args(["-pthread", "-lm"]));
    }

    /// Runs a program over the shared library.
    pub fn run(&self, program: &Path, arguments: &[&OsStr]) -> String {
        run(Command::new(program).args(arguments).env("LD_LIBRARY_PATH", &self.folder))
    }

    /// Compiles tests/c/`name`.c and runs it with a scratch folder as its argument.
    pub fn test(&self, name: &str) {
        let kind = self.folder.file_name().unwrap().to_string_lossy().into_owned();
        let folder = scratch(&format!("{kind}-{name}"));
        let program = folder.join(name);
        self.compile::<&str>(("gcc", "-std=c99"), &[root(&format!("tests/c/{name}.c"))], &program, &[]);
        self.run(&program, &[folder.as_os_str()]);
    }
}
