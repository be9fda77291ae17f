package ols

import (
	"unsafe"

	"libols/ols/internal/capi"
)

// Update says what a call on a batch does to the statistics of a criterion that trains.
type Update uint32

const (
	// Add the samples that are classified right. What a zero Batch says.
	Add Update = 0
	// NoUpdate leaves the statistics as they are: for a second pass over a batch that was counted before.
	NoUpdate Update = capi.BatchNoUpdate
	// TakeBack takes a batch back that was added before, exactly. Its tensors must be the same as then, so not after a gradient has taken the
	// place of the logits. Works in both modes.
	TakeBack Update = capi.BatchTakeBack
)

// Batch is what a call works on: N samples over K classes, or N*inner of them, as the pixels of N images.
type Batch struct {
	// Logits are z: float32, float64, Float16 or BFloat16 of shape (N, K) or (N, K, inner), read as they lie. A row with NaN, +Inf, or nothing
	// but -Inf has a loss and gradient of NaN and adds nothing to the statistics; -Inf in part of a row masks these classes.
	Logits Tensor
	// Targets are y: int64, int32 or uint8 of shape (N) or (N, inner), in [TargetOffset, TargetOffset+K), or the ignore index.
	Targets Tensor
	// SampleWeights are v: float32 or float64 of the shape of the targets, finite and >= 0. A sample that weighs 0 takes no part. Not given: 1.
	SampleWeights Tensor
	// Targets2 are the second targets of Mixup and CutMix; with Lam only.
	Targets2 Tensor
	// Lam is the weight of the first target in [0, 1], float32 or float64: of the shape of the targets, or one value for all.
	Lam Tensor
	// GradLoss is the gradient of the whole with respect to the loss, float32 or float64: one value, or with ReductionNone one per sample. A
	// loss scale belongs here: it is multiplied in before a 16-bit gradient is rounded. Not given: 1.
	GradLoss Tensor
	// TargetOffset: the class is target - TargetOffset; 1 for labels that count from 1. The ignore index is compared before.
	TargetOffset int64
	// Update is Add, NoUpdate or TakeBack.
	Update Update
	// Stream is the CUDA stream on which the work is enqueued.
	Stream Stream
}

// fill writes the batch as the library has it, over zeros, and gives the host memory. (As a result: what is stored through a parameter
// escapes to the heap.)
func (b *Batch) fill(call string, batch *capi.Batch) (data capi.BatchData, err error) {
	if b == nil {
		return data, &Error{InvalidArgument, call + ": batch is nil"}
	}
	batch.StructSize = unsafe.Sizeof(*batch)
	batch.TargetOffset = b.TargetOffset
	batch.Flags = uint32(b.Update)
	batch.Stream = uintptr(b.Stream)
	batch.Logits, data.Logits = b.Logits.view, b.Logits.host
	batch.Targets, data.Targets = b.Targets.view, b.Targets.host
	// Most batches have none of these, and what is not given stays zero.
	if b.SampleWeights.isGiven() {
		batch.SampleWeights, data.SampleWeights = b.SampleWeights.view, b.SampleWeights.host
	}
	if b.Targets2.isGiven() {
		batch.Targets2, data.Targets2 = b.Targets2.view, b.Targets2.host
	}
	if b.Lam.isGiven() {
		batch.Lam, data.Lam = b.Lam.view, b.Lam.host
	}
	if b.GradLoss.isGiven() {
		batch.GradLoss, data.GradLoss = b.GradLoss.view, b.GradLoss.host
	}
	if b.Logits.problem == "" && b.Targets.problem == "" && b.SampleWeights.problem == "" && b.Targets2.problem == "" && b.Lam.problem == "" &&
		b.GradLoss.problem == "" {
		return data, nil
	}
	return data, b.complain(call)
}

// complain says what is wrong with the first view that has a problem. Not in a table, in which the tensors would escape to the heap with
// their names.
func (b *Batch) complain(call string) error {
	switch {
	case b.Logits.problem != "":
		return b.Logits.complain(call, "logits")
	case b.Targets.problem != "":
		return b.Targets.complain(call, "targets")
	case b.SampleWeights.problem != "":
		return b.SampleWeights.complain(call, "sample_weights")
	case b.Targets2.problem != "":
		return b.Targets2.complain(call, "targets2")
	case b.Lam.problem != "":
		return b.Lam.complain(call, "lam")
	}
	return b.GradLoss.check(call, "grad_loss")
}

// Forward computes the loss of a batch, its gradient with respect to the logits, and in training mode the statistics, in one pass over the
// logits. A zero loss or grad is not asked for; both zero: statistics alone.
//
// loss: float32 (float64 for float64 logits); one value, or with ReductionNone the shape of the targets. grad: shape and dtype of the logits,
// and it may be the logits themselves, which then hold the gradient. With q[n,k] = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]:
//
//	loss[n]   = -sum_k q[n,k] * log p[n,k]
//	grad[n,k] = (sum_k q[n,k])*p[n,k] - q[n,k]
//
// times the sample weight, the factor of the reduction, and for the gradient GradLoss (Zhang et al. 2021, equations 3 to 6). A sample that is
// classified right adds p to the statistics of its class. On an error neither outputs nor state are touched.
func (c *Criterion) Forward(batch *Batch, loss, grad Tensor) error {
	const call = "ols.Forward"
	if err := loss.check(call, "loss"); err != nil {
		return err
	}
	return c.pass(call, false, batch, loss.given(), loss.host, &grad)
}

// pass makes a Forward or a Backward, whose first tensor is the loss or the gradient of it. (Not given as a function, through whose parameters
// all would escape to the heap.)
func (c *Criterion) pass(call string, isBackward bool, batch *Batch, first *capi.Tensor, firstData unsafe.Pointer, grad *Tensor) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	var whole capi.Batch
	data, err := batch.fill(call, &whole)
	if err != nil {
		return err
	}
	if err := grad.check(call, "grad"); err != nil {
		return err
	}
	if isBackward {
		return failure(capi.Backward(core.handle, &whole, &data, first, firstData, grad.given(), grad.host))
	}
	return failure(capi.Forward(core.handle, &whole, &data, first, firstData, grad.given(), grad.host))
}

// Loss is Forward for the loss alone, as a number: not with ReductionNone.
func (c *Criterion) Loss(batch *Batch) (float64, error) {
	return c.lossAndGrad("ols.Loss", batch, &Tensor{})
}

// LossAndGrad is Forward with the loss as a number: not with ReductionNone.
func (c *Criterion) LossAndGrad(batch *Batch, grad Tensor) (float64, error) {
	return c.lossAndGrad("ols.LossAndGrad", batch, &grad)
}

func (c *Criterion) lossAndGrad(call string, batch *Batch, grad *Tensor) (float64, error) {
	var single float32
	var double float64
	loss, to := viewOf(F32), unsafe.Pointer(&single)
	if batch != nil && batch.Logits.DType() == F64 {
		loss, to = viewOf(F64), unsafe.Pointer(&double)
	}
	if err := c.pass(call, false, batch, &loss, to, grad); err != nil {
		return 0, err
	}
	return float64(single) + double, nil
}

// LossAndGrad is [Criterion.LossAndGrad] for the usual case: logits (len(targets), K) row-major, and grad of the same length, which may be
// logits itself.
func LossAndGrad[F Float, L Label](c *Criterion, logits []F, targets []L, grad []F) (float64, error) {
	n, k := len(targets), c.Classes()
	var call slices
	call.batch.StructSize = unsafe.Sizeof(call.batch)
	if !isProduct(len(logits), n, k) || len(grad) != len(logits) {
		return call.mismatch(Matrix(logits, n, k), Matrix(grad, n, k))
	}
	setMatrix(&call.batch.Logits, dtypeOf[F](), n, k)
	call.grad = call.batch.Logits
	setVector(&call.batch.Targets, dtypeOf[L](), n)
	call.data.Logits = unsafe.Pointer(unsafe.SliceData(logits))
	call.data.Targets = unsafe.Pointer(unsafe.SliceData(targets))
	call.gradData = unsafe.Pointer(unsafe.SliceData(grad))
	return call.run(c)
}

// slices is a call of the generic LossAndGrad, without the Tensors on the way: they take as long as the crossing to C.
type slices struct {
	batch    capi.Batch
	data     capi.BatchData
	grad     capi.Tensor
	gradData unsafe.Pointer
}

func (s *slices) mismatch(logits, grad Tensor) (float64, error) {
	const call = "ols.LossAndGrad"
	if err := logits.check(call, "logits"); err != nil {
		return 0, err
	}
	return 0, grad.check(call, "grad")
}

func (s *slices) run(c *Criterion) (float64, error) {
	core, err := c.use()
	if err != nil {
		return 0, err
	}
	defer core.mutex.RUnlock()
	var single float32
	var double float64
	loss, to := viewOf(F32), unsafe.Pointer(&single)
	if s.grad.Bits == 64 {
		loss, to = viewOf(F64), unsafe.Pointer(&double)
	}
	if err := failure(capi.Forward(core.handle, &s.batch, &s.data, &loss, to, &s.grad, s.gradData)); err != nil {
		return 0, err
	}
	return float64(single) + double, nil
}

// Backward computes the gradient of a batch alone, recomputed from its logits: bit for bit what Forward gives. No state is touched.
//
// gradLoss is the gradient of the whole with respect to the loss, as in the batch; zero: the batch's own, or 1. Given in both places is an
// error. Any number of Forwards may lie between a Forward and its Backward, but S, alpha and the batch must be the same for the gradients to
// agree: not across NextEpoch.
func (c *Criterion) Backward(batch *Batch, gradLoss, grad Tensor) error {
	const call = "ols.Backward"
	if err := gradLoss.check(call, "grad_loss"); err != nil {
		return err
	}
	return c.pass(call, true, batch, gradLoss.given(), gradLoss.host, &grad)
}

// Accumulate adds to the statistics from given probabilities: the batch's Logits hold p, with entries in [0, 1]. It obeys the mode, Update,
// targets and weights as Forward does.
func (c *Criterion) Accumulate(batch *Batch) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	var whole capi.Batch
	data, err := batch.fill("ols.Accumulate", &whole)
	if err != nil {
		return err
	}
	return failure(capi.Accumulate(core.handle, &whole, &data))
}

// NextEpoch ends the epoch: it makes the soft labels of the next one from the statistics, and clears these (Zhang et al. 2021, equations 4
// and 5). When is the caller's decision: after the last batch of an epoch, and where several workers train, after their statistics were summed
// (see [Criterion.WithStatistics]). [Criterion.Report] tells what happened.
func (c *Criterion) NextEpoch(on ...Stream) error { return c.onStream(on, capi.NextEpoch) }
