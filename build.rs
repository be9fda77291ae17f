//! Names the shared library by its ABI, so that a program finds the one that it was linked against: by the major version, and below 1.0, where each minor
//! version may change the ABI, by both.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The tests of the ABI build with this; see src/capi/hooks.rs.
    println!("cargo::rustc-check-cfg=cfg(ols_test_hooks)");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if system == "linux" {
        let number = match (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")) {
            ("0", minor) => format!("0.{minor}"),
            (major, _) => major.to_owned(),
        };
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libols.so.{number}");
    }
}
