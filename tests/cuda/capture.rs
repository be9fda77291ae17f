//! Stream capture: a captured step stays valid, and captures and synchronising calls do not disturb each other.

use ols::capi::*;
use ols::{EmptyClass, Options, Update};

use crate::device::CudaCriterion;
use crate::fixture::Fixture;
use crate::standin::Standin;

/// A captured training step stays valid across epochs, however often it is replayed.
#[test]
fn cuda_graphs_stay_right_across_epochs() {
    let standin = Standin::new();
    let options = Options::new(12).empty_class(EmptyClass::Uniform).momentum(0.25);
    let (captured, eager) = (Fixture::new(1500, 12, 4), Fixture::new(1500, 12, 4));
    let (mut a, mut b) = (CudaCriterion::new(&options).unwrap(), CudaCriterion::new(&options).unwrap());
    a.stream = standin.stream();
    let step = standin.capture(a.stream, || captured.forward(&mut a, Update::Add));
    standin.wait();
    assert!(a.state(&standin).counts.iter().all(|&count| count == 0), "capturing runs nothing");
    for epoch in 0..3 {
        for _ in 0..3 {
            for fixture in [&captured, &eager] {
                fixture.loss.memory.fill(0xff); // NaN
            }
            standin.replay(step, a.stream);
            eager.forward(&mut b, Update::Add);
            standin.wait();
            assert!(captured.loss.back().0.get(0).is_finite(), "the loss was not written");
            assert_eq!(captured.bits(), eager.bits(), "epoch {epoch}");
        }
        a.next_epoch().unwrap();
        b.next_epoch().unwrap();
        let accumulated = a.report().unwrap().samples_accumulated;
        assert!(accumulated >= 3 * 750 && accumulated == b.report().unwrap().samples_accumulated);
        assert!(a.state(&standin) == b.state(&standin));
    }
    // The end of an epoch can be captured as well.
    let end = standin.capture(a.stream, || a.next_epoch().unwrap());
    standin.replay(step, a.stream);
    standin.replay(end, a.stream);
    eager.forward(&mut b, Update::Add);
    b.next_epoch().unwrap();
    assert!(a.state(&standin) == b.state(&standin));
    standin.destroy_graph(step);
    standin.destroy_graph(end);
}

/// Synchronising calls are rejected while their stream is being captured, without affecting the capture or the
/// criterion.
#[test]
fn cuda_waiting_in_a_capture_is_an_error() {
    let standin = Standin::new();
    let weights = Options::new(4).class_weights(vec![1.0, 2.0, 3.0, 4.0]);
    let files = [CudaCriterion::new(&Options::new(4)).unwrap().save(), CudaCriterion::new(&weights).unwrap().save()];
    let fixture = Fixture::new(30, 4, 7);
    for options in [Options::new(4), weights] {
        let mut criterion = CudaCriterion::new(&options).unwrap();
        criterion.stream = standin.stream();
        fixture.forward(&mut criterion, Update::None);
        standin.wait();
        let before = fixture.bits();
        let graph = standin.capture(criterion.stream, || {
            let mut failures = vec![criterion.report().err().unwrap()];
            failures.extend(files.iter().map(|bytes| criterion.load(bytes).unwrap_err()));
            for failure in failures {
                assert_eq!(failure.status, ols_status_t::OLS_STATUS_INVALID_STATE);
                assert!(failure.text.contains("is being captured"), "{}", failure.text);
            }
            fixture.forward(&mut criterion, Update::None);
        });
        // On the legacy default stream, which would wait for the stream that is being captured.
        let own = std::mem::replace(&mut criterion.stream, std::ptr::null_mut());
        let other = standin.stream();
        let unused = standin.capture(other, || {
            for bytes in &files {
                assert_eq!(criterion.load(bytes).unwrap_err().status, ols_status_t::OLS_STATUS_CUDA);
            }
        });
        criterion.stream = own;
        for replays in [true, false] {
            fixture.loss.memory.fill(0xff);
            if replays {
                standin.replay(graph, own);
            } else {
                fixture.forward(&mut criterion, Update::None);
            }
            standin.wait();
            assert_eq!(fixture.bits(), before, "{:?}", options.class_weights);
        }
        criterion.report().unwrap();
        standin.destroy_graph(graph);
        standin.destroy_graph(unused);
    }
}

/// Criteria can be created, loaded and destroyed while another stream is being captured; the capture stays valid.
#[test]
fn cuda_captures_survive_what_others_do() {
    let standin = Standin::new();
    let options = Options::new(5).class_weights(vec![1.0; 5]);
    let fixture = Fixture::new(20, 5, 3);
    let mut criterion = CudaCriterion::new(&options).unwrap();
    let bytes = criterion.save();
    fixture.forward(&mut criterion, Update::None);
    standin.wait();
    let before = fixture.bits();
    criterion.stream = standin.stream();
    let live = standin.get("live_bytes");
    let graph = standin.capture(criterion.stream, || {
        let mut other = CudaCriterion::new(&options).unwrap();
        other.stream = standin.stream();
        other.load(&bytes).unwrap();
        fixture.forward(&mut criterion, Update::None);
        drop(other);
        assert_eq!(standin.get("live_bytes"), live, "memory was not freed");
    });
    fixture.loss.memory.fill(0xff);
    standin.replay(graph, criterion.stream);
    standin.wait();
    assert_eq!(fixture.bits(), before);
    standin.destroy_graph(graph);
}
