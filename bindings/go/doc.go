// Package ols implements Online Label Smoothing, a classification loss that learns its own soft labels (C. Zhang et
// al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing 30, 2021). It wraps the C library
// libols.
//
// Cross entropy trains against one-hot targets, label smoothing against uniformly smoothed ones. Here each class has a
// soft label of its own: the mean of the distributions that the model predicted in the previous epoch for those samples
// of the class that it classified correctly. The loss, its gradient and these statistics are computed in one pass over
// the logits. The network, the optimiser and all memory remain under the caller's control.
//
//	criterion, err := ols.New(ols.Options{Classes: 10})
//	...
//	for range epochs {
//		for batch := range batches {
//			// logits has shape (N, K), row-major; grad receives the gradient with respect to the logits.
//			loss, err := ols.LossAndGrad(criterion, logits, labels, grad)
//			...
//		}
//		err := criterion.NextEpoch() // computes the soft labels of the next epoch
//	}
//
// # Tensors
//
// [LossAndGrad] takes slices. All other calls on batches take a [Batch] of views ([Tensor]) of slices, which are
// created by [Matrix], [Vector], [Strided] and similar functions: logits are float32, float64, [Float16] or [BFloat16]
// with shape (N, K) or (N, K, inner); targets are int, int64, int32 or uint8. Nothing is copied, converted or
// allocated. Memory of a CUDA device is passed by address ([DeviceArray]) and used on the stream of the batch.
//
// # Options
//
// Fields of [Options] that are zero get the library's defaults, which this package obtains from the library itself.
//
// # Errors
//
// A failed call returns an [*Error] with the library's message, which names the argument, the rule and the value, and
// with a [Status], for errors.Is. It has written no output and changed no state. A missing file is also fs.ErrNotExist.
// Calls after Close return [ErrClosed].
//
// # Goroutines
//
// A criterion is safe for concurrent use; calls on the same criterion are serialised. The statistics are integers, so
// the soft labels are bitwise identical for any number of goroutines and any order of the batches. To train with
// several criteria, sum their statistics before NextEpoch (see [Criterion.WithStatistics]).
//
// # Linking
//
// The package is built with cgo against an installed libols, which pkg-config must find under the name ols. With the
// build tag ols_static, libols.a is linked and the program does not need libols.so.
package ols
