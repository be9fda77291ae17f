mod criterion; mod data; mod loss; mod metrics; mod network; mod noise; mod optimiser; mod random; mod settings; mod training;
use anyhow::Result;
use settings::Settings;
fn main() -> Result<()> {
    let a: Vec<f64> = std::env::args().skip(1).take(9).map(|a| a.parse().unwrap()).collect();
    let dir = std::env::args().nth(10).map(std::path::PathBuf::from);
    let data = data::Dataset::read(dir.as_deref())?;
    let s = Settings { data: dir, data_checksum: 0, train: a[0] as usize, epochs: a[1] as usize, noise: 0.4, batch: a[2] as usize, hidden: a[3] as usize, learning_rate: a[4], weight_decay: a[5], alpha: a[6], smoothing: a[7] };
    let runs = loss::Run::all(a[8] as u64);
    let mut sums = std::collections::BTreeMap::new();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let out = std::sync::Mutex::new(&mut sums);
    std::thread::scope(|sc| for _ in 0..2 { sc.spawn(|| rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| loop {
        let i = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let Some(r) = runs.get(i) else { break };
        let t0 = std::time::Instant::now();
        let split = data::Split::draw(&data, r.seed, s.train);
        let mut t = training::Training::new(*r, &split, data.classes(), &s).unwrap();
        while !t.is_finished() { t.step().unwrap(); }
        if r.seed == 0 && r.loss.learns_soft_labels() { eprintln!("{:?} {:.3?}", r.labels, &t.soft_labels()[..3]); }
        let h = &t.progress.history;
        let n = h.len();
        out.lock().unwrap().entry((r.labels.short_name(), r.loss.short_name())).or_insert(vec![]).push((h.clone(), t0.elapsed().as_secs_f64()));
        let _ = n;
    })); });
    for (k, v) in &sums {
        let m = |f: &dyn Fn(&training::Epoch) -> f64, e: usize| v.iter().map(|(h, _)| f(&h[e.min(h.len()-1)])).sum::<f64>() / v.len() as f64;
        let n = v[0].0.len();
        let pk = v.iter().map(|(h, _)| h.iter().max_by(|a, b| a.validation_accuracy.total_cmp(&b.validation_accuracy)).unwrap().test_accuracy).sum::<f64>() / v.len() as f64;
        print!("{k:?} train {:.3} wrong {:.3} | val {:.3} acc {:.4} nll {:.3} ece {:.3} | es {:.4} | t {:.1}s | ", m(&|e| e.train_accuracy, n), m(&|e| e.wrong_learned.unwrap_or(0.), n), m(&|e| e.validation_accuracy, n), m(&|e| e.test_accuracy, n), m(&|e| e.test_nll, n), m(&|e| e.test_ece, n), pk, v[0].1);
        for q in 1..=8 { print!("{:.3} ", m(&|e| e.test_accuracy, n * q / 8 - 1)); }
        println!();
    }
    Ok(())
}
