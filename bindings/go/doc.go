// Package ols is Online Label Smoothing for Go: a classification loss that learns its own soft labels (C. Zhang et al., "Delving Deep into
// Label Smoothing", IEEE Transactions on Image Processing 30, 2021), computed by libols.
//
// Instead of the one-hot or uniformly smoothed target of cross entropy, each class has a soft label: the mean of the distributions that the
// model gave to the samples of that class which it classified right in the epoch before. One pass over the logits gives loss, gradient and these
// statistics; network, optimiser and memory stay the caller's.
//
//	criterion, err := ols.New(ols.Options{Classes: 10})
//	...
//	for range epochs {
//		for batch := range batches {
//			loss, err := ols.LossAndGrad(criterion, logits, labels, grad) // logits (N, K) row-major; grad by the logits
//			...
//		}
//		err := criterion.NextEpoch() // from here on the soft labels of this epoch hold
//	}
//
// # Tensors
//
// [LossAndGrad] takes slices. All else goes through a [Batch] of views ([Tensor]) on slices: [Matrix], [Vector], [Strided] and others make one,
// of float32, float64, [Float16] and [BFloat16] logits in shape (N, K) or (N, K, inner), and of int, int64, int32 and uint8 targets. Nothing is
// copied, converted or allocated. Memory of a CUDA device goes in by its address ([DeviceArray]), on the stream that the batch names.
//
// # Options
//
// What is left zero in [Options] has the library's default, which this package asks the library for.
//
// # Errors
//
// An error is an [*Error] with the library's message, which names the argument, the rule and the value, and with a [Status] that errors.Is
// finds. No output is written then and no state is changed. Calls after Close are [ErrClosed].
//
// # Goroutines
//
// Calls on one criterion may come from any goroutine, and wait for each other. The statistics are integers, so that the soft labels are the same
// bit for bit for any number of goroutines and any order of the batches. To train with several criteria, sum their statistics before NextEpoch
// ([Criterion.WithStatistics]).
//
// # Linking
//
// The package is built with cgo against an installed libols, which pkg-config finds by the name ols. The tag ols_static links libols.a, so that
// the program needs no libols.so.
package ols
