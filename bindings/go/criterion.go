package ols

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"libols/ols/internal/capi"
)

type pointer = unsafe.Pointer

// Criterion is the loss function together with the soft labels that it learns. It is created by [New] and destroyed by
// [Criterion.Close]. It is safe for concurrent use: calls on the same criterion are serialised, and different criteria
// share no state. A copy of the struct refers to the same criterion.
type Criterion struct {
	// core adds a level of indirection, so that a copied Criterion cannot be destroyed twice.
	core *core
}

type core struct {
	// mutex is held for reading by every call, and for writing by Close and by calls that must not run concurrently
	// with others.
	mutex     sync.RWMutex
	handle    capi.Criterion
	classes   int
	resources *resources
	cleanup   runtime.Cleanup
}

// resources holds what a criterion has to release. It does not refer to its core: otherwise the cleanup of the core
// would keep the core alive.
type resources struct {
	handle capi.Criterion
	pinner runtime.Pinner
}

func (r *resources) release() {
	capi.Destroy(r.handle)
	r.pinner.Unpin()
}

var checkLibrary = sync.OnceValue(func() error {
	if problem := capi.CheckLibrary(); problem != "" {
		return fmt.Errorf("%w: %s", ErrLibrary, problem)
	}
	return nil
})

// Version returns the version of the loaded libols, such as "0.1.0".
func Version() string { return capi.LibraryVersion() }

// New creates a criterion. It fails if an option is out of range (the error names it), if the loaded library has an
// incompatible version ([ErrLibrary]), if the device is not available ([Unsupported]), or if memory is insufficient
// ([OutOfMemory]): a criterion that owns its state needs 12*K*K bytes.
//
// Call [Criterion.Close] when the criterion is no longer needed. A criterion that is not closed is destroyed some time
// after it has become unreachable.
func New(options Options) (*Criterion, error) {
	if err := checkLibrary(); err != nil {
		return nil, err
	}
	all, data, err := options.complete()
	if err != nil {
		return nil, err
	}
	r := new(resources)
	// The library keeps these addresses until the criterion is destroyed.
	for _, memory := range []unsafe.Pointer{data.SoftLabels, data.Sums, data.Counts, data.Counters} {
		if memory != nil {
			r.pinner.Pin(memory)
		}
	}
	handle, result := capi.Create(&all, &data)
	if err := failure(result); err != nil {
		r.pinner.Unpin()
		return nil, err
	}
	r.handle = handle
	c := &core{handle: handle, classes: options.Classes, resources: r}
	c.cleanup = runtime.AddCleanup(c, (*resources).release, r)
	return &Criterion{c}, nil
}

// Close destroys the criterion: it waits for calls in progress, frees what the library allocated, and unpins the
// caller's memory. All later calls return [ErrClosed]; closing a criterion twice is a no-op. The error is always nil;
// it exists to satisfy io.Closer.
func (c *Criterion) Close() error {
	if c == nil || c.core == nil {
		return nil
	}
	core := c.core
	core.mutex.Lock()
	defer core.mutex.Unlock()
	if core.handle == 0 {
		return nil
	}
	core.cleanup.Stop()
	core.handle = 0
	core.resources.release()
	return nil
}

// Classes returns K, the number of classes, even after Close.
func (c *Criterion) Classes() int {
	if c == nil || c.core == nil {
		return 0
	}
	return c.core.classes
}

// use begins a call, which must end with core.mutex.RUnlock. Until then core, and thus the handle, stays alive.
func (c *Criterion) use() (*core, error) {
	if c == nil || c.core == nil {
		return nil, ErrClosed
	}
	c.core.mutex.RLock()
	if c.core.handle == 0 {
		c.core.mutex.RUnlock()
		return nil, ErrClosed
	}
	return c.core, nil
}

// orClosed returns err, the error of an argument, or ErrClosed if there is no criterion to call.
func (c *Criterion) orClosed(err error) error {
	core, closed := c.use()
	if closed != nil {
		return closed
	}
	core.mutex.RUnlock()
	return err
}

// useAlone begins a call that excludes all others; it must end with core.mutex.Unlock.
func (c *Criterion) useAlone() (*core, error) {
	if c == nil || c.core == nil {
		return nil, ErrClosed
	}
	c.core.mutex.Lock()
	if c.core.handle == 0 {
		c.core.mutex.Unlock()
		return nil, ErrClosed
	}
	return c.core, nil
}

// onStream makes a call on the given stream, or on the default stream if there is none.
func (c *Criterion) onStream(on []Stream, call func(handle capi.Criterion, stream uintptr) capi.Result) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	var stream Stream
	switch len(on) {
	case 0:
	case 1:
		stream = on[0]
	default:
		return &Error{InvalidArgument, fmt.Sprintf("ols: %d streams were given, but a call uses only one", len(on))}
	}
	return failure(call(core.handle, uintptr(stream)))
}
