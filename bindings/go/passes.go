package ols

import (
	"unsafe"

	"libols/ols/internal/capi"
)

// Update says how a call on a batch affects the statistics.
type Update uint32

const (
	// Add adds the correctly classified samples in training mode. It is the default.
	Add Update = 0
	// NoUpdate leaves the statistics unchanged. It is meant for a second pass over a batch that has been counted
	// already.
	NoUpdate Update = capi.BatchNoUpdate
	// TakeBack subtracts a batch that was added earlier, exactly undoing its effect on the statistics. Its tensors must
	// be the same as when it was added, so the logits must not have been overwritten by the gradient. TakeBack works in
	// both modes.
	TakeBack Update = capi.BatchTakeBack
)

// Batch holds the inputs of a call: N samples of K classes, or N*inner samples such as the pixels of N images.
type Batch struct {
	// Logits are z: float32, float64, Float16 or BFloat16 of shape (N, K) or (N, K, inner), with any strides. A row
	// that contains NaN or +Inf, or that is -Inf throughout, has a NaN loss and gradient and adds nothing to the
	// statistics. An entry of -Inf in any other row masks its class.
	Logits Tensor
	// Targets are y: int64, int32 or uint8 of shape (N) or (N, inner). Each is in [TargetOffset, TargetOffset+K) or
	// equal to the ignore index.
	Targets Tensor
	// SampleWeights are v: float32 or float64, of the shape of the targets, finite and >= 0. A sample of weight 0 is
	// ignored. The default is 1 for every sample.
	SampleWeights Tensor
	// Targets2 are the second targets of Mixup and CutMix. They require Lam.
	Targets2 Tensor
	// Lam is the weight of the first target, in [0, 1]: float32 or float64, of the shape of the targets or a single
	// value for all samples.
	Lam Tensor
	// GradLoss is the upstream gradient: float32 or float64, a single value or, with ReductionNone, one value per
	// sample. A loss scale belongs here, because it is applied before a 16-bit gradient is rounded. The default is 1.
	GradLoss Tensor
	// TargetOffset is the target of the first class: the class is target - TargetOffset, so use 1 for one-based labels.
	// The ignore index is compared with the target as given.
	TargetOffset int64
	// Update is Add, NoUpdate or TakeBack.
	Update Update
	// Stream is the CUDA stream on which the work is enqueued. It is ignored on the CPU.
	Stream Stream
}

// fill writes the batch into the library's struct, which must be zero, and returns the addresses of host memory. They
// are results because whatever is stored through a parameter escapes to the heap.
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
	// Few batches have these; what is not given remains zero.
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

// complain reports the first view that has a problem. It does not use a table, because the tensors in it and their
// names would then escape to the heap.
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

// Forward computes the loss of a batch and its gradient with respect to the logits and, in training mode, updates the
// statistics, all in one pass over the logits. loss and grad describe the outputs; each may be the zero Tensor if it is
// not wanted. If both are zero, only the statistics are updated.
//
// loss is float32 (float64 for float64 logits): a single value or, with ReductionNone, of the shape of the targets.
// grad has the shape and dtype of the logits. It may be the logits themselves, which are then overwritten by the
// gradient. With q[n,k] = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]:
//
//	loss[n]   = -sum_k q[n,k] * log p[n,k]
//	grad[n,k] = (sum_k q[n,k])*p[n,k] - q[n,k]
//
// Each is multiplied by the sample weight and by the factor of the reduction, and the gradient also by GradLoss (Zhang
// et al. 2021, equations 3 to 6). A correctly classified sample adds p to the statistics of its class. On failure
// outputs and state are unchanged.
func (c *Criterion) Forward(batch *Batch, loss, grad Tensor) error {
	const call = "ols.Forward"
	if err := loss.check(call, "loss"); err != nil {
		return c.orClosed(err)
	}
	return c.pass(call, false, batch, loss.given(), loss.host, &grad)
}

// pass makes a Forward or Backward call; first is the loss or the upstream gradient. It does not take the call as a
// function, through whose parameters everything would escape to the heap.
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

// Loss is like Forward, but computes only the loss and returns it as a number. It cannot be used with ReductionNone.
func (c *Criterion) Loss(batch *Batch) (float64, error) {
	return c.lossAndGrad("ols.Loss", batch, &Tensor{})
}

// LossAndGrad is like Forward, but returns the loss as a number. It cannot be used with ReductionNone.
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

// LossAndGrad is [Criterion.LossAndGrad] for the common case: logits of shape (len(targets), K), row-major, and grad of
// the same length, which may be logits itself.
func LossAndGrad[F Float, L Label](c *Criterion, logits []F, targets []L, grad []F) (float64, error) {
	n, k := len(targets), c.Classes()
	var call slices
	call.batch.StructSize = unsafe.Sizeof(call.batch)
	if !isProduct(len(logits), n, k) || len(grad) != len(logits) {
		return 0, c.orClosed(mismatch(Matrix(logits, n, k), Matrix(grad, n, k)))
	}
	setMatrix(&call.batch.Logits, dtypeOf[F](), n, k)
	call.grad = call.batch.Logits
	setVector(&call.batch.Targets, dtypeOf[L](), n)
	call.data.Logits = unsafe.Pointer(unsafe.SliceData(logits))
	call.data.Targets = unsafe.Pointer(unsafe.SliceData(targets))
	call.gradData = unsafe.Pointer(unsafe.SliceData(grad))
	return call.run(c)
}

// slices is a call of the generic LossAndGrad. It avoids the intermediate Tensors, which would take as long as the
// transition to C.
type slices struct {
	batch    capi.Batch
	data     capi.BatchData
	grad     capi.Tensor
	gradData unsafe.Pointer
}

func mismatch(logits, grad Tensor) error {
	const call = "ols.LossAndGrad"
	if err := logits.check(call, "logits"); err != nil {
		return err
	}
	return grad.check(call, "grad")
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

// Backward computes only the gradient of a batch, from its logits. The result is bitwise identical to that of Forward.
// No state is changed.
//
// gradLoss is the upstream gradient, as in the batch. If it is the zero Tensor, the one in the batch is used, or 1; it
// is an error to give both. Any number of Forward calls may come between a Forward and its Backward. The gradients
// agree as long as S, alpha and the batch are the same, so NextEpoch must not come between them.
func (c *Criterion) Backward(batch *Batch, gradLoss, grad Tensor) error {
	const call = "ols.Backward"
	if err := gradLoss.check(call, "grad_loss"); err != nil {
		return c.orClosed(err)
	}
	return c.pass(call, true, batch, gradLoss.given(), gradLoss.host, &grad)
}

// Accumulate updates the statistics from probabilities that the caller has computed already: the Logits of the batch
// hold p, with entries in [0, 1]. The mode, Update, targets and weights have the same effect as in Forward.
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

// NextEpoch ends the epoch: it computes the soft labels of the next epoch from the statistics, then resets the
// statistics (Zhang et al. 2021, equations 4 and 5). Call it after the last batch of an epoch; with several workers,
// sum their statistics first (see [Criterion.WithStatistics]). [Criterion.Report] returns a summary.
func (c *Criterion) NextEpoch(on ...Stream) error { return c.onStream(on, capi.NextEpoch) }
