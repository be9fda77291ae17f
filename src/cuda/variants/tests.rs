//! The table of kernels: which one a batch gets.

use super::*;

const ROWS: Kind = Kind {
    classes: 0,
    dtype: DType::F32,
    samples: 1000,
    side_by_side: false,
    rare: false,
    dense: true,
    compact: true,
    apart: true,
    room: None,
};
const PIXELS: Kind = Kind { side_by_side: true, dense: false, compact: false, ..ROWS };

/// The name of the kernel of a launch.
fn name(launch: Launch) -> String {
    kernels(Module::Hopper).find(|listed| listed.id == launch.kernel).map(|listed| listed.name).unwrap()
}

/// Both sides of every limit of the table, in every dtype, in the usual and in the general form.
#[test]
fn cuda_table_at_its_limits() {
    let rows = |classes| match classes {
        0..=32 => "rows8",
        33..=256 => "rows32",
        257..=1024 => "rows128",
        1025..=2048 => "rows256",
        _ => "rows512",
    };
    for classes in [2, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 2047, 2048, 2049, 100_000, 1 << 30] {
        for (dtype, text) in DTYPES {
            let found = |kind: Kind| name(launch(Kind { classes, dtype, ..kind }));
            let (pixels, way) = (if classes <= 32 { "samples" } else { rows(classes) }, rows(classes));
            let usual = |way: &str| if dtype == DType::F64 { format!("ols_{way}_any_f64") } else { format!("ols_{way}_{text}") };
            let best = |way: &str| match (dtype, way) {
                (DType::F64, _) => usual(way),
                (_, "rows8") => usual("few32"),
                _ => usual(way),
            };
            assert_eq!(found(ROWS), best(way));
            assert_eq!(found(Kind { samples: 1023, ..ROWS }), best(way));
            assert_eq!(found(Kind { samples: 1024, ..ROWS }), best(if way == "rows128" && dtype != DType::F64 { "wide32" } else { way }));
            let many =
                if way == "rows8" && dtype != DType::F64 { format!("ols_staged_{text}") } else { found(Kind { samples: 1024, ..ROWS }) };
            assert_eq!(
                (found(Kind { samples: 2048, ..ROWS }), found(Kind { samples: 2049, ..ROWS })),
                (found(Kind { samples: 1024, ..ROWS }), many)
            );
            let apart = Kind { dense: false, compact: false, ..ROWS };
            for kind in [Kind { rare: true, ..ROWS }, apart, Kind { rare: true, ..apart }] {
                assert_eq!(found(kind), format!("ols_{way}_any_{text}"), "{kind:?}");
            }
            // A few non-contiguous rows have a usual kernel; many rows of few classes need the general one.
            assert_eq!(found(Kind { compact: false, ..ROWS }), best(way));
            let padded = if classes <= 32 { format!("ols_rows8_any_{text}") } else { found(Kind { samples: 2049, ..ROWS }) };
            assert_eq!(found(Kind { compact: false, samples: 2049, ..ROWS }), padded);
            // Strided classes with adjacent samples: the kernel `samples`.
            let expected = if pixels == "samples" { usual(pixels) } else { format!("ols_{way}_any_{text}") };
            assert_eq!(found(PIXELS), expected);
            assert_eq!(found(Kind { rare: true, ..PIXELS }), format!("ols_{pixels}_any_{text}"));
        }
    }
}

/// Rows that the copy engine brings to shared memory, in usual kernels of devices that have one.
#[test]
fn cuda_table_with_a_copy_engine() {
    let room = Some(227 * 1024 - 2080);
    let found = |kind: Kind| name(launch(kind));
    for (classes, samples, dtype, with, without) in [
        (256, 1024, DType::Bf16, "rows32_bf16", "rows32_bf16"),
        (257, 1023, DType::Bf16, "rows128_bf16", "rows128_bf16"),
        (257, 1024, DType::F16, "shared32_f16", "wide32_f16"),
        (1024, 1024, DType::Bf16, "shared32_bf16", "wide32_bf16"),
        (512, 1024, DType::F32, "shared32_f32", "wide32_f32"),
        (513, 1024, DType::F32, "wide32_f32", "wide32_f32"),
        (1025, 1024, DType::Bf16, "rows256_bf16", "rows256_bf16"),
        (6144, 1, DType::F32, "rows512_f32", "rows512_f32"),
        (6145, 1, DType::F32, "stream512_f32", "rows512_f32"),
        (6145, 1 << 20, DType::F16, "stream512_f16", "rows512_f16"),
        // The longest rows that fit.
        (49_152, 9, DType::F32, "stream512_f32", "rows512_f32"),
        (49_153, 9, DType::F32, "rows512_f32", "rows512_f32"),
        (32_768, 9, DType::Bf16, "stream512_bf16", "rows512_bf16"),
        (32_769, 9, DType::Bf16, "rows512_bf16", "rows512_bf16"),
        (300, 2000, DType::F64, "rows128_any_f64", "rows128_any_f64"),
        (7000, 9, DType::F64, "rows512_any_f64", "rows512_any_f64"),
    ] {
        let kind = Kind { classes, samples, dtype, ..ROWS };
        assert_eq!(found(kind), format!("ols_{without}"), "{kind:?}");
        assert_eq!(found(Kind { room, ..kind }), format!("ols_{with}"), "{kind:?}");
        // Everything else as on other devices.
        for other in [Kind { rare: true, ..kind }, Kind { dense: false, compact: false, ..kind }, Kind { apart: false, ..kind }] {
            assert_eq!(found(Kind { room, ..other }), found(other));
        }
    }
    assert_eq!(launch(Kind { classes: 6145, room, ..ROWS }).threads, 576);
    assert_eq!(launch(Kind { classes: 300, samples: 2000, dtype: DType::F16, room, ..ROWS }).memory, Memory::Slots(4 * 6176, 0));
}

/// A stream has slots for a whole row, those that are left prefer soft labels up to a limit, and all fit.
#[test]
fn cuda_streams_fill_their_room() {
    let of = |classes, dtype, room| slots::stream(classes, dtype, room).map(|(bytes, cached)| (bytes, cached % 256, cached / 256));
    let (label, f32, f16) = (4 * 4096 + 16, 4 * 4096 + 16, 2 * 4096 + 16);
    let barriers = 16 * (16 + 4);
    assert_eq!(of(7000, DType::F32, barriers + 2 * f32 + 2 * label), Some((barriers + 2 * f32 + 2 * label, 2, 2)));
    assert_eq!(of(7000, DType::F32, barriers + 2 * f32 + 2 * label - 1), None);
    assert_eq!(of(7000, DType::F16, barriers + 28_000 + 2 * f16 + 2 * label), Some((barriers + 28_000 + 2 * f16 + 2 * label, 2, 2)));
    assert_eq!(of(7000, DType::F16, barriers + 28_000 + 2 * f16 + 2 * label - 1), None);
    assert_eq!(of(8192, DType::F32, 1 << 30), Some((barriers + 16 * f32 + 4 * label, 16, 4)));
    assert_eq!(of(16 * 4096 + 1, DType::F32, 1 << 30), None);
    for (classes, dtype) in
        [6145, 8192, 8193, 21_841, 32_000].into_iter().flat_map(|classes| [(classes, DType::F32), (classes, DType::Bf16)])
    {
        for room in (100 << 10)..(228 << 10) {
            let Some((bytes, logits, labels)) = of(classes, dtype, room) else { continue };
            assert!(bytes <= room && logits as usize >= classes.div_ceil(4096) && (2..=4).contains(&labels), "{classes} {room}");
        }
    }
}

/// As many blocks as there is work for, or as are resident at once.
#[test]
fn cuda_grids_at_their_limits() {
    let blocks = |kind: Kind, at_once: usize| {
        let launch = launch(kind);
        (launch.threads, launch.blocks(kind.samples, || Ok(at_once)).unwrap())
    };
    let rows = |classes, samples| Kind { classes, samples, ..ROWS };
    for (kind, at_once, expected) in [
        (rows(10, 0), 6, (128, 1)),
        (rows(32, 4), 6, (128, 1)),
        (rows(32, 5), 6, (128, 2)),
        (Kind { rare: true, ..rows(10, 128) }, 6, (256, 4)),
        (Kind { dtype: DType::F64, ..rows(10, 128) }, 6, (256, 4)),
        (rows(33, 128), 600, (128, 32)),
        // Limited by the device.
        (rows(10, 2048), 600, (128, 512)),
        (rows(10, 2049), 600, (256, 9)),
        (rows(10, 2049), 6, (256, 6)),
        (rows(300, 1 << 20), 6, (128, 6)),
        (rows(100, 20), 6, (128, 5)),
        (rows(100, 21), 6, (128, 6)),
        (rows(300, 1), 0, (128, 1)),
        (rows(300, 2), 0, (128, 1)),
        (rows(300, 7), 6, (128, 6)),
        (rows(1025, 7), 8, (256, 7)),
        (rows(2049, 7), 6, (512, 6)),
        // No other limit.
        (rows(10, 131_073), 10_000, (256, 513)),
        (Kind { rare: true, ..rows(10, 4097) }, 10_000, (256, 129)),
        (rows(300, 1023), 10_000, (128, 1023)),
        (rows(300, 1024), 10_000, (128, 256)),
        (Kind { rare: true, ..rows(300, 4097) }, 10_000, (128, 4097)),
        (rows(2049, 1 << 40), 10_000, (512, 10_000)),
        (Kind { classes: 21, samples: 0, ..PIXELS }, 6, (256, 1)),
        (Kind { classes: 21, samples: 257, ..PIXELS }, 6, (256, 2)),
        (Kind { classes: 21, samples: 1 << 40, ..PIXELS }, 10_000, (256, 10_000)),
    ] {
        assert_eq!(blocks(kind, at_once), expected, "{kind:?} {at_once}");
    }
}

/// Only kernels without a limit on the number of classes keep rows in shared memory.
#[test]
fn cuda_long_rows_have_their_bytes() {
    for (classes, dtype, bytes) in
        [(2048, DType::F32, None), (2049, DType::F32, Some(8196)), (2049, DType::Bf16, Some(4098)), (3000, DType::F64, Some(24_000))]
    {
        let found = launch(Kind { classes, dtype, ..ROWS });
        assert_eq!(found.memory, bytes.map_or(Memory::None, Memory::Row));
        let listed = kernels(Module::Ols).find(|listed| listed.id == found.kernel).unwrap();
        assert_eq!((listed.long_rows, listed.threads), (bytes.is_some(), Some(found.threads)));
    }
}

/// Every kernel has its own id.
#[test]
fn cuda_kernels_have_their_ids() {
    let names: Vec<String> = kernels(Module::Hopper).map(|listed| listed.name).collect();
    assert_eq!(names.len(), 10 * 3 + 6 * 4 + 4 + 5);
    let others: Vec<String> = kernels(Module::Ols).map(|listed| listed.name).collect();
    assert!(others.len() == names.len() - 2 * 3 && others.iter().all(|name| names.contains(name)));
    assert!(!names.iter().any(|name| name.ends_with("f64") && !name.contains("any") && !name.contains("accumulate")));
    let mut ids: Vec<usize> = kernels(Module::Hopper).map(|listed| listed.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == names.len() && ids.iter().all(|&id| id < KERNELS));
}

/// The modules that each path selects on older and on newer devices.
#[test]
fn cuda_paths_choose_modules() {
    for (path, older, newer) in [
        (Path::Default, Some(Module::Ols), Some(Module::Hopper)),
        (Path::Plain, Some(Module::Ols), Some(Module::Ols)),
        (Path::Hopper, None, Some(Module::Hopper)),
    ] {
        assert_eq!((path.module(false), path.module(true)), (older, newer), "{path:?}");
    }
}
