// Package standin loads the stand-in for the CUDA driver (cuda/tests) instead of libcuda, to test device memory without
// a GPU. Only tests import it.
package standin

/*
#cgo linux LDFLAGS: -ldl

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int (*init_function)(unsigned);
typedef int (*retain_function)(void **, int);
typedef int (*set_current_function)(void *);
typedef int (*allocate_function)(unsigned long long *, size_t);
typedef int (*stream_function)(void **, unsigned);
typedef int (*wait_function)(void);
typedef long long (*get_function)(const char *);

static void *driver;

// libols opens libcuda.so by that name, and finds the stand-in once it is loaded.
static int standin_open(const char *path) { return (driver = dlopen(path, RTLD_NOW | RTLD_GLOBAL)) != NULL; }

// The current context belongs to the thread, so each function sets its own.
static int standin_enter(int device) {
    void *context;
    if (((init_function)dlsym(driver, "cuInit"))(0) != 0) return 0;
    if (((retain_function)dlsym(driver, "cuDevicePrimaryCtxRetain"))(&context, device) != 0) return 0;
    return ((set_current_function)dlsym(driver, "cuCtxSetCurrent"))(context) == 0;
}

static uintptr_t standin_allocate(int device, size_t bytes) {
    unsigned long long address = 0;
    if (!standin_enter(device) || ((allocate_function)dlsym(driver, "cuMemAlloc_v2"))(&address, bytes) != 0) return 0;
    return (uintptr_t)address;
}

static uintptr_t standin_stream(int device) {
    void *stream = NULL;
    if (!standin_enter(device) || ((stream_function)dlsym(driver, "cuStreamCreate"))(&stream, 1) != 0) return 0;
    return (uintptr_t)stream;
}

static int standin_wait(void) { return standin_enter(0) && ((wait_function)dlsym(driver, "cuCtxSynchronize"))() == 0; }

static int64_t standin_get(const char *name) { return ((get_function)dlsym(driver, "standin_get"))(name); }

// The memory of the emulated device is host memory.
static void standin_write(uintptr_t to, const char *from, size_t bytes) { memcpy((void *)to, from, bytes); }
static void standin_read(char *to, uintptr_t from, size_t bytes) { memcpy(to, (const void *)from, bytes); }
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// Open loads the stand-in at path. It must be called before libols looks for a driver.
func Open(path string) error {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if C.standin_open(name) == 0 {
		return fmt.Errorf("%s: %s", path, C.GoString(C.dlerror()))
	}
	return nil
}

// Memory returns the address of a copy of values in new memory of a device, which is never freed. It panics if the
// allocation fails.
func Memory[T any](device int, values []T) uintptr {
	size := len(values) * int(unsafe.Sizeof(*new(T)))
	address := C.standin_allocate(C.int(device), C.size_t(size))
	if address == 0 {
		panic("standin: no memory")
	}
	C.standin_write(address, (*C.char)(unsafe.Pointer(unsafe.SliceData(values))), C.size_t(size))
	return uintptr(address)
}

// Read returns a copy of count values from device memory, after all enqueued work has completed.
func Read[T any](address uintptr, count int) []T {
	Wait()
	values := make([]T, count)
	C.standin_read((*C.char)(unsafe.Pointer(unsafe.SliceData(values))), C.uintptr_t(address), C.size_t(count*int(unsafe.Sizeof(*new(T)))))
	return values
}

// Stream creates a stream of a device.
func Stream(device int) uintptr {
	stream := C.standin_stream(C.int(device))
	if stream == 0 {
		panic("standin: no stream")
	}
	return uintptr(stream)
}

// Wait runs all enqueued work.
func Wait() {
	if C.standin_wait() == 0 {
		panic("standin: the work cannot be run")
	}
}

// Get returns a number that the stand-in keeps, such as "synchronisations".
func Get(name string) int64 {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return int64(C.standin_get(text))
}
