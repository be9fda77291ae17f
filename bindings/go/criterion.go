package ols

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"libols/ols/internal/capi"
)

type pointer = unsafe.Pointer

// Criterion is the loss with the soft labels that it learns. [New] makes one, Close ends it. Any goroutine may use it; calls on one criterion
// wait for each other, and two criteria share nothing. A copy of the struct is the same criterion.
type Criterion struct {
	// One level of indirection, so that a copied Criterion cannot be destroyed twice.
	core *core
}

type core struct {
	// Held for reading by every call, and for writing by Close and whatever must not run beside a call.
	mutex     sync.RWMutex
	handle    capi.Criterion
	classes   int
	resources *resources
	cleanup   runtime.Cleanup
}

// resources is what a criterion has to give back; it knows nothing of its core, so that the cleanup of that one can have it.
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

// Version gives the version of libols that is loaded, such as "0.1.0".
func Version() string { return capi.LibraryVersion() }

// New makes a criterion. Options outside their ranges are an error that names them; so is a library of another version ([ErrLibrary]), a device
// that the library does not have ([Unsupported]) and too little memory ([OutOfMemory]): a criterion needs 12*K*K bytes.
//
// Close it when it is no longer needed. One that is forgotten is destroyed some time after the garbage collector finds it.
func New(options Options) (*Criterion, error) {
	if err := checkLibrary(); err != nil {
		return nil, err
	}
	all, data, err := options.complete()
	if err != nil {
		return nil, err
	}
	r := new(resources)
	// The library keeps the addresses of the state.
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

// Close ends the criterion: it waits for calls that run, frees what the library allocated, and unpins memory of the caller's. All later calls
// return [ErrClosed]; a second Close does nothing. The error is always nil; it is there for io.Closer.
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

// Classes gives K; after Close too.
func (c *Criterion) Classes() int {
	if c == nil || c.core == nil {
		return 0
	}
	return c.core.classes
}

// use begins a call, which ends with core.mutex.RUnlock: that also keeps core, and with it the handle, alive until then.
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

// useAlone begins a call beside which no other one runs; it ends with core.mutex.Unlock.
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

// onStream makes a call that goes on the stream that the caller named, or on the default one.
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
		return &Error{InvalidArgument, fmt.Sprintf("ols: %d streams; a call goes on one", len(on))}
	}
	return failure(call(core.handle, uintptr(stream)))
}
