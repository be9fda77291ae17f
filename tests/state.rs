//! The saved state: what comes back, what is refused, and that a refusal changes nothing.

use ols::{Batch, Criterion, EmptyClass, ErrorKind, Initial, Mode, Options, Reduction, TensorRef, Update};

const CLASSES: usize = 5;

fn options() -> Options {
    Options::new(CLASSES)
        .alpha(0.3)
        .initial(Initial::Matrix((0..CLASSES * CLASSES).map(|i| i as f32 / 7.0).collect()))
        .empty_class(EmptyClass::Initial)
        .min_count(2)
        .momentum(0.1)
        .freeze_above(900.0)
        .class_weights(vec![1.0, 0.5, 0.1, 2.0, 0.0])
        .ignore_index(255)
}

/// Step number `step` of a training run: its own logits and targets.
fn train(criterion: &mut Criterion, step: usize) {
    let samples = 11;
    let mut logits: Vec<f32> = (0..samples * CLASSES).map(|i| ((i * 37 + step * 101) % 97) as f32 / 16.0).collect();
    let targets: Vec<u8> = (0..samples).map(|n| if n == 3 { 255 } else { ((n * 3 + step) % CLASSES) as u8 }).collect();
    for (n, &target) in targets.iter().enumerate().filter(|(n, target)| n % 3 > 0 && **target != 255) {
        logits[n * CLASSES + usize::from(target)] = 7.0;
    }
    logits[5 * CLASSES] = f32::NAN;
    let mut gradient = vec![0.0; logits.len()];
    criterion.loss_and_gradient(&logits, &targets, &mut gradient).unwrap();
}

/// All that a criterion remembers, as bits.
fn memory(criterion: &Criterion) -> (Vec<u32>, Vec<i64>, i64, Options) {
    let soft_labels = (0..CLASSES).flat_map(|class| criterion.soft_label(class).iter().map(|s| s.to_bits())).collect();
    let sums = (0..CLASSES).flat_map(|class| criterion.sums(class).to_vec());
    let statistics = sums.chain(criterion.counts().to_vec()).chain(criterion.counters().to_vec()).collect();
    (soft_labels, statistics, criterion.epoch(), criterion.options().clone())
}

/// A criterion in the middle of its second epoch.
fn trained() -> Criterion {
    let mut criterion = Criterion::new(&options()).unwrap();
    (0..3).for_each(|step| train(&mut criterion, step));
    criterion.next_epoch().unwrap();
    (3..5).for_each(|step| train(&mut criterion, step));
    criterion
}

#[test]
fn a_resumed_run_equals_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut never_stopped = trained();
    never_stopped.save(&path).unwrap();
    let mut resumed = Criterion::new(&Options::new(CLASSES).reduction(Reduction::Sum).mode(Mode::Eval).threads(1)).unwrap();
    resumed.load(&path).unwrap();
    // What belongs to the caller stays the caller's.
    assert_eq!((resumed.options().reduction, resumed.mode(), resumed.options().threads), (Reduction::Sum, Mode::Eval, 1));
    resumed.set_mode(Mode::Train);
    for step in 5..9 {
        assert_eq!(memory(&resumed).0, memory(&never_stopped).0);
        train(&mut resumed, step);
        train(&mut never_stopped, step);
        assert_eq!(resumed.next_epoch().unwrap(), never_stopped.next_epoch().unwrap());
    }
    let (mut a, b) = (memory(&resumed), memory(&never_stopped));
    a.3 = a.3.reduction(Reduction::Mean).mode(Mode::Train).threads(0);
    assert_eq!(a, b);
}

#[test]
fn equal_states_make_equal_files() {
    assert_eq!(trained().to_bytes().unwrap(), trained().to_bytes().unwrap());
}

#[test]
fn every_truncation_is_refused() {
    let bytes = trained().to_bytes().unwrap();
    let mut criterion = Criterion::new(&Options::new(CLASSES)).unwrap();
    let before = memory(&criterion);
    for length in 0..bytes.len() {
        let error = criterion.load_bytes(&bytes[..length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFile, "{length} bytes: {error}");
        assert!(error.message().contains("truncated"), "{length} bytes: {error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(criterion.load_bytes(&longer).unwrap_err().message().contains("lengthened"));
    assert_eq!(memory(&criterion), before);
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = trained().to_bytes().unwrap();
    let mut criterion = Criterion::new(&Options::new(CLASSES)).unwrap();
    let before = memory(&criterion);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match criterion.load_bytes(&damaged) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidFile, "bit {bit}: {error}"),
            Ok(()) => panic!("bit {bit} of byte {} ({:?}) went unnoticed", bit / 8, char::from(bytes[bit / 8])),
        }
    }
    assert_eq!(memory(&criterion), before);
}

/// `bytes` with `from`, which occurs once, replaced by as many bytes.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let found: Vec<usize> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(found.len() == 1 && from.len() == to.len(), "{} times", found.len());
    let mut bytes = bytes.to_vec();
    bytes[found[0]..][..to.len()].copy_from_slice(to);
    bytes
}

/// A name may stand for anything, such as the weights of a large model: what no criterion can have saved is not read to its end.
#[test]
fn files_larger_than_any_saved_state_are_refused_by_their_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let mut criterion = trained();
    let before = memory(&criterion);
    let mut message = |kind: ErrorKind, beginning: &[u8]| {
        std::fs::write(&path, beginning).unwrap();
        // A terabyte that takes no room.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let error = criterion.load(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        error.message().to_owned()
    };
    let saved = trained().to_bytes().unwrap();
    let other = Criterion::new(&Options::new(CLASSES + 1)).unwrap().to_bytes().unwrap();
    let expected = format!("the file has num_classes = {}, but the criterion has {CLASSES}", CLASSES + 1);
    assert!(message(ErrorKind::InvalidArgument, &other).ends_with(&expected));
    let newer = replaced(&saved, b"\\\"format\\\":1,", b"\\\"format\\\":2,");
    assert!(message(ErrorKind::InvalidFile, &newer).contains("newer file: its format 2"));
    assert!(message(ErrorKind::InvalidFile, &saved).contains("corrupted file: it has more than"));
    assert!(message(ErrorKind::InvalidFile, b"").contains("foreign file: it has more than"));
    #[cfg(target_os = "linux")]
    assert!(criterion.load("/dev/zero").unwrap_err().message().starts_with("/dev/zero: foreign file"));
    assert_eq!(memory(&criterion), before);
}

#[test]
fn foreign_files_are_named() {
    let mut criterion = Criterion::new(&Options::new(CLASSES)).unwrap();
    let mut message = |bytes: &[u8]| {
        let error = criterion.load_bytes(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFile, "{error}");
        error.message().to_owned()
    };
    assert!(message(b"PK\x03\x04 a zip file, as PyTorch writes them, of some length").contains("foreign"));
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1], &[7]).unwrap();
    let other = safetensors::serialize([("weight", view)], None).unwrap();
    assert!(message(&other).contains("foreign"));
    let newer = replaced(&trained().to_bytes().unwrap(), b"\\\"format\\\":1,", b"\\\"format\\\":2,");
    let expected = concat!(
        "newer file: its format 2, written by libols ",
        env!("CARGO_PKG_VERSION"),
        ", is newer than 1, the latest that this library reads"
    );
    assert_eq!(message(&newer), expected);
}

/// The page says what is in a file, name by name.
#[test]
fn the_page_about_the_format_is_right() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/file-format.md")).unwrap();
    let bytes = trained().to_bytes().unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let [(key, text)] = header.metadata().as_ref().unwrap().iter().collect::<Vec<_>>()[..] else { panic!("one entry") };
    assert!(page.contains(&format!("one entry, `{key}`")));
    let keys = |text: &str| -> Vec<String> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        object.keys().cloned().collect()
    };
    let example = page.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
    assert_eq!(keys(example), keys(text));
    let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").collect()).collect();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(rows.len(), tensors.len());
    for row in rows {
        let tensor = tensors.tensor(row[0].trim_matches(['|', ' ', '`'])).unwrap();
        let shape = match row[2] {
            "(K, K)" => vec![CLASSES, CLASSES],
            "(K)" => vec![CLASSES],
            "(4)" => vec![4],
            other => panic!("{other}"),
        };
        assert_eq!((format!("{:?}", tensor.dtype()), tensor.shape()), (row[1].to_owned(), &shape[..]));
    }
}

#[test]
fn another_number_of_classes_is_refused() {
    let mut criterion = Criterion::new(&Options::new(CLASSES + 1)).unwrap();
    let error = criterion.load_bytes(&trained().to_bytes().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.message(), "the file has num_classes = 5, but the criterion has 6");
}

#[test]
fn saving_replaces_files_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let criterion = trained();
    std::fs::write(&path, "old").unwrap();
    criterion.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), criterion.to_bytes().unwrap());
    // Nothing temporary is left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = criterion.save(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("not a regular file"), "{error}");
    let error = criterion.save(folder.path().join("missing").join("state")).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.message().contains("missing"), "{error}");
    #[cfg(unix)]
    {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        criterion.save(&link).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

#[test]
fn workers_that_merge_learn_what_one_would() {
    let mut alone = Criterion::new(&options()).unwrap();
    let mut workers = [Criterion::new(&options()).unwrap(), Criterion::new(&options()).unwrap()];
    for step in 0..6 {
        train(&mut alone, step);
        train(&mut workers[step % 2], step);
    }
    let [mut first, second] = workers;
    first.merge(&second).unwrap();
    assert_eq!(first.next_epoch().unwrap(), alone.next_epoch().unwrap());
    assert_eq!(memory(&first), memory(&alone));
}

#[test]
fn sums_that_do_not_fit_are_not_merged() {
    // Of a right sample of probability 1, merged into each other in turns: the numbers of Fibonacci.
    let mut criteria = [(); 2].map(|()| Criterion::new(&Options::new(CLASSES)).unwrap());
    let mut logits = [0f32; CLASSES];
    logits[0] = 100.0;
    for criterion in &mut criteria {
        criterion.loss_and_gradient(&logits, &[0u8], &mut [0f32; CLASSES]).unwrap();
    }
    let [mut one, mut other] = criteria;
    let unit = 1 << ols::FRACTION_BITS;
    while let Some(sum) = one.sums(0)[0].checked_add(other.sums(0)[0]) {
        one.merge(&other).unwrap();
        assert_eq!((one.sums(0)[0], one.counts()[0]), (sum, sum / unit));
        std::mem::swap(&mut one, &mut other);
    }
    assert!(one.counts()[0] + other.counts()[0] >= 1 << 33);
    let (before, sums) = (memory(&one), (one.sums(0)[0], other.sums(0)[0]));
    let error = one.merge(&other).unwrap_err();
    assert_eq!((error.kind(), memory(&one)), (ErrorKind::InvalidState, before));
    assert_eq!(error.message(), format!("sums[0, 0] = {} + {} does not fit 64 bits", sums.0, sums.1));
}

#[test]
fn options_are_as_they_are_now() {
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    criterion.set_mode(ols::Mode::Eval);
    criterion.set_alpha(0.25).unwrap();
    assert_eq!(*criterion.options(), Options::new(3).mode(ols::Mode::Eval).alpha(0.25));
}

#[test]
fn the_last_epoch_can_be_saved_and_loaded() {
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    criterion.set_epoch(i64::MAX - 2).unwrap();
    criterion.next_epoch().unwrap();
    let before = criterion.to_bytes().unwrap();
    assert_eq!(criterion.next_epoch().unwrap_err().kind(), ErrorKind::InvalidState);
    assert_eq!(criterion.to_bytes().unwrap(), before);
    criterion.load_bytes(&before).unwrap();
    assert_eq!(criterion.epoch(), i64::MAX - 1);
}

#[test]
fn what_could_not_be_loaded_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let mut criterion = Criterion::new(&Options::new(3)).unwrap();
    let pass = |criterion: &mut Criterion, logits: &[f32; 3], update| {
        let batch = Batch::new(TensorRef::new(logits, &[1, 3]).unwrap(), [0i64][..].into()).update(update);
        criterion.forward(&batch, None, None).unwrap();
    };
    pass(&mut criterion, &[5.0, 1.0, 0.0], Update::Add);
    criterion.save(&file).unwrap();
    let before = std::fs::read(&file).unwrap();
    // Of the same class, but with other probabilities.
    pass(&mut criterion, &[5.0, 2.0, 0.0], Update::TakeBack);
    let sums = criterion.sums(0).to_vec();
    assert!(sums[1] < 0, "{sums:?}");
    for error in [criterion.save(&file).unwrap_err(), criterion.to_bytes().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidState);
        let expected =
            format!("element 1 of sums is negative: {}; was a batch taken back that had not been added, or with other logits?", sums[1]);
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(criterion.sums(0), sums);
    // The epoch's end clears the statistics.
    criterion.next_epoch().unwrap();
    criterion.save(&file).unwrap();
    criterion.load(&file).unwrap();
}

type Contents = Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a file, and what it says beside them, with zeros for the checksum.
fn contents(bytes: &[u8]) -> (Contents, String) {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    let text = header.metadata().as_ref().unwrap()["libols"].clone();
    let stated = text.split("\"checksum\":\"").nth(1).unwrap()[..8].to_owned();
    let mut contents: Contents =
        tensors.iter().map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())).collect();
    contents.sort();
    (contents, text.replace(&stated, "00000000"))
}

/// What another writer would make of them: a file with a checksum to match.
fn written(contents: &Contents, text: &str) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(text.as_bytes());
    contents.iter().for_each(|(name, _, _, data)| {
        crc.update(name.as_bytes());
        crc.update(data);
    });
    let metadata = text.replace("\"checksum\":\"00000000\"", &format!("\"checksum\":\"{:08x}\"", crc.finalize()));
    let views = contents
        .iter()
        .map(|(name, dtype, shape, data)| (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, Some([("libols".to_owned(), metadata)].into())).unwrap()
}

#[test]
fn a_file_with_values_that_no_criterion_has_is_refused() {
    let mut criterion = Criterion::new(&Options::new(2)).unwrap();
    let (good, text) = contents(&criterion.to_bytes().unwrap());
    let before = criterion.soft_label(0).to_vec();
    for (name, value) in [("soft_labels", f32::NAN.to_le_bytes().to_vec()), ("counts", (-1i64).to_le_bytes().to_vec())] {
        let mut contents = good.clone();
        contents.iter_mut().filter(|tensor| tensor.0 == name).for_each(|tensor| tensor.3[..value.len()].copy_from_slice(&value));
        let error = criterion.load_bytes(&written(&contents, &text)).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidFile && error.message().contains(name), "{error}");
    }
    let mut contents = good;
    contents.push(("weight".into(), safetensors::Dtype::U8, vec![1], vec![7]));
    let error = criterion.load_bytes(&written(&contents, &text)).unwrap_err();
    assert_eq!(error.message(), "corrupted file: tensor \"weight\" does not belong to a saved state");
    assert_eq!(criterion.soft_label(0), before);
    assert!(criterion.set_epoch(i64::MAX).is_err());
}

/// With all tensors that there can be, each of more bytes than are allowed for the header.
#[test]
fn the_largest_files_are_loaded() {
    const CLASSES: usize = 600;
    let initial: Vec<f32> = (0..CLASSES * CLASSES).map(|entry| (entry % 7) as f32 / 4096.0).collect();
    let options = Options::new(CLASSES).class_weights(vec![2.0; CLASSES]).initial(Initial::Matrix(initial));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let saved = Criterion::new(&options).unwrap();
    saved.save(&path).unwrap();
    let mut loaded = Criterion::new(&Options::new(CLASSES)).unwrap();
    loaded.load(&path).unwrap();
    assert_eq!(loaded.to_bytes().unwrap(), saved.to_bytes().unwrap());
}

/// Each entry of the metadata, left out or with each value: refused as a whole, or taken and saved again.
#[test]
fn metadata_of_other_writers_is_refused_or_taken_as_a_whole() {
    let before = trained().to_bytes().unwrap();
    let (contents, text) = contents(&before);
    let mut criterion = trained();
    let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let values = r#"[null, 0, -1, 1, 2, 0.5, -0.0, 1e308, 1e-320, 5, 4294967296, 9223372036854775806, 9223372036854775807, 18446744073709551615,
        true, "", "keep", "uniform", "matrix", [], [0.5], {}, {"smoothing": 0.25}, {"smoothing": 2.0}, {"smoothing": null}, {"uniform": 1}]"#;
    let values: Vec<serde_json::Value> = serde_json::from_str(values).unwrap();
    let mut taken = 0;
    let cases = entries.keys().filter(|key| *key != "checksum").flat_map(|key| (0..=values.len()).map(move |at| (key, at)));
    for (key, at) in cases {
        let value = values.get(at);
        let mut entries = entries.clone();
        entries.remove(key);
        if let Some(value) = value {
            entries.insert(key.clone(), value.clone());
        }
        match criterion.load_bytes(&written(&contents, &serde_json::to_string(&entries).unwrap())) {
            Ok(()) => {
                taken += 1;
                let saved = criterion.to_bytes().unwrap();
                criterion.load_bytes(&saved).unwrap();
                assert_eq!(criterion.to_bytes().unwrap(), saved, "{key}: {value:?}");
                criterion.load_bytes(&before).unwrap();
            }
            Err(error) => assert!(matches!(error.kind(), ErrorKind::InvalidFile | ErrorKind::InvalidArgument), "{key}: {value:?}: {error}"),
        }
        assert_eq!(criterion.to_bytes().unwrap(), before, "{key}: {value:?}");
    }
    assert!(taken > 20, "{taken}");
}

/// Bytes replaced, put in and left out, and lengths that no file has.
#[test]
fn thousands_of_damaged_files_are_refused() {
    const SYNTAX: &[u8] = b"0123456789-+.eE\",:{}[]\\";
    let good = trained().to_bytes().unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut criterion = Criterion::new(&Options::new(CLASSES)).unwrap();
    let before = criterion.to_bytes().unwrap();
    let mut state = 1970u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for round in 0..5000 {
        let mut bytes = good.clone();
        for _ in 0..1 + below(3) {
            // Half of them in the header, which is most of what can be told apart.
            let at = if below(2) == 0 { below(header.min(bytes.len())) } else { below(bytes.len()) };
            match below(4) {
                0 => bytes[at] = SYNTAX[below(SYNTAX.len())],
                1 => bytes.insert(at, SYNTAX[below(SYNTAX.len())]),
                2 => {
                    bytes.remove(at);
                }
                _ => {
                    let lengths = [0, 1, header as u64 - 16, header as u64, 100_000_001, 1 << 32, u64::MAX / 2, u64::MAX];
                    bytes[..8].copy_from_slice(&lengths[below(lengths.len())].to_le_bytes());
                }
            }
        }
        if bytes != good {
            let error = criterion.load_bytes(&bytes).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidFile), "round {round}: {error}");
        }
    }
    assert_eq!(criterion.to_bytes().unwrap(), before);
}
