//! Numbers at the limits of their types.

use ols::{Batch, Criterion, DType, Options, TensorRef};

use crate::standin::{DEVICE, DeviceMemory, Standin};

/// However small a soft label is, it counts for a masked class, whose loss is infinite, and for logits whose
/// difference exceeds the range of a float.
#[test]
fn cuda_tiny_soft_labels_of_far_logits_count() {
    let standin = Standin::new();
    // With enough identical rows for the kernel that handles many rows.
    for (classes, n) in [(4, 2), (32, 4096), (100, 2), (300, 2), (1500, 2), (3000, 2)] {
        for (tiny, high, low) in [(1e-36f32, 0.0, f32::NEG_INFINITY), (1e-36, 3e38f32, -3e38), (0.0, 0.0, f32::NEG_INFINITY)] {
            for weighted in [false, true] {
                let mut options = Options::new(classes).alpha(0.0);
                if weighted {
                    options = options.class_weights((0..classes).map(|class| 1.0 + (class % 3) as f64).collect::<Vec<_>>());
                }
                let mut soft_labels = vec![0f32; classes * classes];
                soft_labels[0] = 1.0;
                soft_labels[1] = tiny;
                let logits = [vec![high, low], vec![high; classes - 2]].concat().repeat(n);
                let targets = vec![0i64; n];

                let mut on_cpu = Criterion::new(&options).unwrap();
                on_cpu.set_soft_labels(&soft_labels).unwrap();
                let mut gradient = vec![0f32; n * classes];
                let expected = on_cpu.loss_and_gradient(&logits, &targets, &mut gradient).unwrap();

                let mut on_device = Criterion::new(&options.clone().device(DEVICE)).unwrap();
                let matrix = DeviceMemory::from(bytemuck::cast_slice(&soft_labels));
                on_device.set_soft_labels_on(matrix.view(DType::F32, &[classes, classes]), ols::CudaStream::LEGACY).unwrap();
                let (memory, of_targets) =
                    (DeviceMemory::from(bytemuck::cast_slice(&logits)), DeviceMemory::from(bytemuck::cast_slice(&targets)));
                let (loss, grad) = (DeviceMemory::new(4), DeviceMemory::new(n * classes * 4));
                let view: TensorRef<'_> = memory.view(DType::F32, &[n, classes]);
                let batch = Batch::new(view, of_targets.view(DType::I64, &[n]));
                on_device.forward(&batch, Some(loss.output(DType::F32, &[])), Some(grad.output(DType::F32, &[n, classes]))).unwrap();
                standin.wait();
                let found = bytemuck::pod_read_unaligned::<f32>(loss.bytes());
                let case = format!("K = {classes}, S[0, 1] = {tiny:e}, z from {high:e} to {low:e}, weights: {weighted}");
                assert!(found == expected || (found - expected).abs() <= 4e-6 * expected.abs(), "{case}: {found} differs from {expected}");
                assert_eq!(expected.is_infinite(), tiny > 0.0 && low.is_infinite(), "{case}");
                for (index, (found, expected)) in bytemuck::pod_collect_to_vec::<u8, f32>(grad.bytes()).iter().zip(&gradient).enumerate() {
                    assert!((found - expected).abs() <= 1e-6, "{case}: grad[{index}] = {found} differs from {expected}");
                }
            }
        }
    }
}
