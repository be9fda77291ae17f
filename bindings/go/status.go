package ols

import (
	"errors"

	"libols/ols/internal/capi"
)

// Status is the kind of an error, by the library's permanent number. It is an error itself, to be compared with:
//
//	if errors.Is(err, ols.TargetOutOfRange) { ... }
//
// A number that this package has no name for is kept as it is.
type Status int32

const (
	// InvalidArgument: an argument is missing, not finite, outside its range, or inconsistent with another one.
	InvalidArgument Status = capi.StatusInvalidArgument
	// InvalidDType: a tensor has a dtype that this argument does not take.
	InvalidDType Status = capi.StatusInvalidDType
	// InvalidShape: a tensor has the wrong number of dimensions, a wrong size, or strides that cannot be read or written.
	InvalidShape Status = capi.StatusInvalidShape
	// InvalidDevice: a tensor lives on another device than the criterion.
	InvalidDevice Status = capi.StatusInvalidDevice
	// TargetOutOfRange: a target is neither a class nor the ignore index.
	TargetOutOfRange Status = capi.StatusTargetOutOfRange
	// InvalidState: the state of the criterion does not permit the call.
	InvalidState Status = capi.StatusInvalidState
	// Unsupported: this build or this machine cannot do what is asked.
	Unsupported Status = capi.StatusUnsupported
	// OutOfMemory: memory could not be allocated.
	OutOfMemory Status = capi.StatusOutOfMemory
	// IO: the operating system refused to read or write a file.
	IO Status = capi.StatusIO
	// InvalidFile: the bytes are not a saved state, or a truncated or damaged one.
	InvalidFile Status = capi.StatusInvalidFile
	// CUDA reported an error.
	CUDA Status = capi.StatusCUDA
	// Panic is a bug in libols; the criterion refuses all further calls but Close.
	Panic Status = capi.StatusPanic
)

// String gives the library's name of the status, such as "INVALID_SHAPE"; "UNKNOWN" for a number that it does not know.
func (s Status) String() string { return capi.StatusString(int32(s)) }

// Error makes a Status an error to compare with; what went wrong is said by [Error].
func (s Status) Error() string { return "libols: " + s.String() }

// Error is what a call failed with. Nothing has happened then: no output is written, no state is changed.
type Error struct {
	// Status is the kind, which errors.Is finds as well.
	Status Status
	// Message names the argument, the rule and the value:
	// "ols_forward: target[17] = 1003 is outside [0, 1000) and is not ignore_index (-100)".
	Message string
}

// Error gives the message.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the status, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Status }

// ErrClosed is the error of every call on a criterion after its Close, and on one that New did not make.
var ErrClosed = errors.New("ols: the criterion is closed, or was not made by New")

// ErrLibrary is found (by errors.Is) in New's error where the library that was loaded has another version than the header that this package
// was compiled with. The error names both, and the library's path.
var ErrLibrary = errors.New("ols: wrong libols")

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
