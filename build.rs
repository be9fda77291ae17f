//! Names the shared library by its ABI, so that a program finds the one that it was linked against.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The tests of the ABI build with this; see src/capi/hooks.rs.
    println!("cargo::rustc-check-cfg=cfg(ols_test_hooks)");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if system == "linux" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libols.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    }
}
