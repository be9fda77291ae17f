package ols

import (
	"errors"
	"regexp"
	"strconv"
	"sync"
	"syscall"

	"libols/ols/internal/capi"
)

// Status is the kind of an error, the library's permanent number. It is an error itself, so that it can be used with
// errors.Is:
//
//	if errors.Is(err, ols.TargetOutOfRange) { ... }
//
// Numbers unknown to this package are kept as they are.
type Status int32

const (
	// InvalidArgument means that an argument is missing, not finite, out of range, or inconsistent with another one.
	InvalidArgument Status = capi.StatusInvalidArgument
	// InvalidDType means that a tensor has a dtype that is not supported for this argument.
	InvalidDType Status = capi.StatusInvalidDType
	// InvalidShape means that a tensor has the wrong number of dimensions, a wrong size, or unusable strides.
	InvalidShape Status = capi.StatusInvalidShape
	// InvalidDevice means that a tensor is on a different device from the criterion, or that there is no such device.
	InvalidDevice Status = capi.StatusInvalidDevice
	// TargetOutOfRange means that a target is neither a class nor the ignore index.
	TargetOutOfRange Status = capi.StatusTargetOutOfRange
	// InvalidState means that the call is not valid in the criterion's current state.
	InvalidState Status = capi.StatusInvalidState
	// Unsupported means that this build or this machine does not support the request.
	Unsupported Status = capi.StatusUnsupported
	// OutOfMemory means that memory could not be allocated.
	OutOfMemory Status = capi.StatusOutOfMemory
	// IO means that the operating system could not read or write a file.
	IO Status = capi.StatusIO
	// InvalidFile means that the data is not a saved state, or is truncated or corrupted.
	InvalidFile Status = capi.StatusInvalidFile
	// CUDA means that CUDA reported an error.
	CUDA Status = capi.StatusCUDA
	// Panic is an internal error (a bug in libols). The criterion then rejects every call except Close.
	Panic Status = capi.StatusPanic
)

// String returns the library's name of the status, such as "INVALID_SHAPE", or "UNKNOWN".
func (s Status) String() string { return capi.StatusString(int32(s)) }

// Error makes Status an error that can be compared with; the description of what went wrong is in [Error].
func (s Status) Error() string { return "libols: " + s.String() }

// Error is the error of a failed call. A failed call has no effect: no output is written and no state is changed.
type Error struct {
	// Status is the kind of the error; errors.Is finds it as well, and fs.ErrNotExist and the like for IO.
	Status Status
	// Message names the argument, the rule and the value:
	// "ols_forward: target[17] = 1003 is outside [0, 1000) and is not ignore_index (-100)".
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the status and, for [IO], the operating system's error if the message ends with its number, for
// errors.Is and errors.As: errors.Is(err, fs.ErrNotExist) tells that the file, or the folder to write it to, is missing.
// errors.Unwrap, which knows single errors only, gives nil.
func (e *Error) Unwrap() []error {
	if e.Status == IO {
		if found := osError().FindStringSubmatch(e.Message); found != nil {
			if number, err := strconv.ParseInt(found[1], 10, 32); err == nil {
				return []error{e.Status, syscall.Errno(number)}
			}
		}
	}
	return []error{e.Status}
}

// How the library ends what it passes on from the operating system; a temporary file's path may follow.
var osError = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)\(os error (\d+)\)(?: at path ".*")?\z`)
})

// ErrClosed is returned by every call on a criterion that was closed, or was not created by New.
var ErrClosed = errors.New("ols: the criterion is closed, or was not created by New")

// ErrLibrary is wrapped by the error of New if the version of the loaded library does not match the header that this
// package was compiled with. The error names both versions and the path of the library.
var ErrLibrary = errors.New("ols: incompatible libols")

func failure(r capi.Result) error {
	if r.Status == capi.StatusOK {
		return nil
	}
	status := Status(r.Status)
	if r.Message == "" {
		return &Error{status, status.Error()}
	}
	return &Error{status, r.Message}
}
