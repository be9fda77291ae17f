//! Whether LICENSE-THIRD-PARTY.md, which goes out with every binary, names the crates that are in it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// `make licenses` rewrites the file.
#[test]
fn the_third_party_licenses_are_those_of_the_lock_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = std::fs::read_to_string(root.join("LICENSE-THIRD-PARTY.md")).unwrap();
    let listed: BTreeSet<_> = listed.lines().filter_map(|line| line.strip_prefix("* ")).map(str::to_owned).collect();
    let mut linked = BTreeSet::new();
    for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        let mut tree = Command::new(env!("CARGO"));
        tree.current_dir(root).args(["tree", "--locked", "--package", "ols", "--edges", "normal", "--prefix", "none", "--target", target]);
        let output = tree.output().unwrap();
        assert!(output.status.success(), "{tree:?}: {}", String::from_utf8_lossy(&output.stderr));
        // Such as "half v2.7.1", with more behind it for some.
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (name, version) = line.split_once(" v").unwrap();
            linked.insert(format!("{name} {}", version.split(' ').next().unwrap()));
        }
    }
    assert!(linked.len() > 20, "{linked:?}");
    assert_eq!(listed, linked, "make licenses");
}
