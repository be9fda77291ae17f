"""
    OLSError <: Exception

A failed call to libols. Outputs and state are unchanged. Fields:

- `code::Int32`: the number of the status, as in `ols.h`; a number unknown to this package is kept as it is.
- `message::String`: the library's message, which names the argument, the rule and the value.

[`OnlineLabelSmoothing.status`](@ref) returns the name of the status.
"""
struct OLSError <: Exception
    code::Int32
    message::String
end

"""
    OnlineLabelSmoothing.status(error::OLSError) -> Symbol

Return the name of the status, such as `:invalid_shape` for `OLS_STATUS_INVALID_SHAPE`, or `:unknown` for a number
unknown to this package.
"""
status(error::OLSError) = error.code in values(STATUSES) ? symbol_of(STATUSES, error.code) : :unknown

Base.showerror(io::IO, error::OLSError) = print(io, "OLSError: ", error.message, " (", uppercase(string(status(error))), ", status ", error.code, ")")

# Returns the exception for the call of this thread that has just failed. The message is first copied outside Julia's
# heap: an allocation may run the garbage collector, and a finalizer may call the library and thereby overwrite the
# message.
@noinline function last_error(code::Int32)
    copied = ccall(:strdup, Ptr{UInt8}, (Ptr{UInt8},), ccall(FUNCTIONS[].ols_last_error, Ptr{UInt8}, ()))
    copied == C_NULL && throw(OutOfMemoryError())
    message = unsafe_string(copied)
    Libc.free(copied)
    return OLSError(code, message)
end

check(code::Int32) = code == OLS_STATUS_OK ? nothing : throw(last_error(code))
