//! What libols.so shows to the linker: the functions of the header, its SONAME, and nothing else.

mod abi;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use abi::toolchain::{Library, run, soname};
use abi::{root, text};

/// Names in the dynamic symbol table that other programs can link to.
fn exported() -> BTreeSet<String> {
    let listing = run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(Library::release().folder.join("libols.so")));
    listing.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// The functions that include/ols.h declares.
fn declared() -> BTreeSet<String> {
    let header = text("include/ols.h");
    let functions = header.split("extern \"C\" {").nth(1).unwrap();
    let declarations = functions.lines().filter(|line| line.contains('(') && !line.starts_with([' ', '/']));
    declarations.filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next()).map(String::from).collect()
}

/// `OLS_BLESS=1 cargo test --test symbols` rewrites the list. A name that goes away breaks programs.
#[test]
fn exported_symbols_are_those_of_the_list_and_the_header() {
    let exported = exported();
    let list: String = exported.iter().map(|name| format!("{name}\n")).collect();
    if std::env::var_os("OLS_BLESS").is_some_and(|value| value == "1") {
        fs::write(root("tests/abi/symbols.txt"), &list).unwrap();
    }
    assert_eq!(text("tests/abi/symbols.txt"), list, "OLS_BLESS=1 cargo test --test symbols");
    assert_eq!(exported, declared(), "libols.so exports what ols.h declares");
    assert!(exported.iter().all(|name| name.starts_with("ols_") && !name.starts_with("ols_test_")));
}

/// A program finds the library by its ABI, and the library needs the system's own alone.
#[test]
fn the_library_is_named_by_its_abi_and_needs_no_other() {
    let library = Library::release().folder.join("libols.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
    // 0.1 and 0.2 are as different as 1 and 2.
    let abi = match ols::capi::OLS_ABI_VERSION {
        0 => format!("0.{}", env!("CARGO_PKG_VERSION_MINOR")),
        abi => abi.to_string(),
    };
    assert!(dynamic.contains(&format!("Library soname: [libols.so.{abi}]")), "{dynamic}");
    assert_eq!(soname(&library), format!("libols.so.{abi}"));
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(["[libc.so.6]", "[libgcc_s.so.1]", "[libm.so.6]", "[ld-linux"].iter().any(|name| line.contains(name)), "{line}");
    }
}
