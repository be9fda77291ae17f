//! cuda/compiled: what the host code expects of it, made from the present sources, for old drivers, without spills.

use std::collections::BTreeMap;

use crate::standin::Standin;

/// Kernels and host code have the same structs and constants, and the PTX and the machine code contain every kernel.
#[test]
fn cuda_host_and_kernels_agree() {
    let standin = Standin::new();
    let ours: BTreeMap<String, usize> = ols::cuda::layout().into_iter().collect();
    assert_eq!(ours, standin.layout());
    for (file, kernels) in ols::cuda::kernel_names() {
        let ptx = ptx(file);
        for name in &kernels {
            assert!(ptx.contains(&format!(".visible .entry {name}(")), "{name}");
        }
        assert_eq!(ptx.matches(".visible .entry ").count(), kernels.len(), "{file}");
        for machine in if file == "ols" { &["sm_75", "sm_80"][..] } else { &["sm_90"] } {
            let machine = unpacked(machine);
            for name in &kernels {
                let section = format!("\0.text.{name}\0");
                assert!(machine.windows(section.len()).any(|window| window == section.as_bytes()), "{name}");
            }
        }
    }
}

/// Drivers from CUDA 12.0 on accept the PTX, which is for compute capabilities 7.5 and 9.0, and it was compiled from
/// the present sources.
#[test]
fn cuda_ptx_is_for_old_drivers_and_not_stale() {
    let stated = format!("// Sources: crc32 {}\n", crate::standin::sources());
    for (file, target) in [("ols", "sm_75"), ("hopper", "sm_90")] {
        let ptx = ptx(file);
        assert!(ptx.contains(&format!("\n.version 8.0\n.target {target}\n")), "{file}");
        assert!(ptx.contains(&stated), "cuda/compiled is stale: run cuda/build");
    }
    // The architecture of machine code is in the low byte of the flags in its ELF header.
    for capability in [75, 80, 90] {
        let machine = unpacked(&format!("sm_{capability}"));
        assert_eq!((&machine[..4], machine[48]), (&b"\x7fELF"[..], capability));
    }
}

/// Compiling again gives the committed PTX and machine code, and no kernel spills registers on any architecture.
#[test]
fn cuda_ptx_can_be_made_again_without_spills() {
    let answer = std::process::Command::new(crate::standin::root().join("cuda/build")).arg("--check").output().expect("cuda/build runs");
    assert!(answer.status.success(), "{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    println!("{}", String::from_utf8_lossy(&answer.stdout));
}

fn ptx(file: &str) -> String {
    String::from_utf8(unpacked(&format!("{file}.ptx"))).unwrap()
}

fn unpacked(name: &str) -> Vec<u8> {
    let packed = std::fs::read(crate::standin::root().join(format!("cuda/compiled/{name}.zz"))).unwrap();
    miniz_oxide::inflate::decompress_to_vec_zlib(&packed).unwrap()
}
