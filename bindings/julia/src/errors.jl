"""
    OLSError <: Exception

A call to libols failed; nothing has changed then, neither outputs nor state. Fields:

- `code::Int32`: the number of the status, as in `ols.h`; a number that this package does not know is kept as it is.
- `message::String`: the library's text, which names the argument, the rule and the value.

[`OnlineLabelSmoothing.status`](@ref) gives the status its name.
"""
struct OLSError <: Exception
    code::Int32
    message::String
end

"""
    OnlineLabelSmoothing.status(error::OLSError) -> Symbol

The name of the status in `ols.h`, such as `:invalid_shape` for `OLS_STATUS_INVALID_SHAPE`; `:unknown` for a number that this package does not know.
"""
status(error::OLSError) = error.code in values(STATUSES) ? symbol_of(STATUSES, error.code) : :unknown

Base.showerror(io::IO, error::OLSError) = print(io, "OLSError: ", error.message, " (", uppercase(string(status(error))), ", status ", error.code, ")")

# The exception for the call that has just failed in this thread. The text is copied outside of Julia's heap first: an allocation may run the garbage
# collector, and a finalizer may call the library and so overwrite it.
@noinline function last_error(code::Int32)
    copied = ccall(:strdup, Ptr{UInt8}, (Ptr{UInt8},), ccall(FUNCTIONS[].ols_last_error, Ptr{UInt8}, ()))
    copied == C_NULL && throw(OutOfMemoryError())
    message = unsafe_string(copied)
    Libc.free(copied)
    return OLSError(code, message)
end

check(code::Int32) = code == OLS_STATUS_OK ? nothing : throw(last_error(code))
