# The exception of a call, or nothing.
function error_of(f)
    try
        f()
    catch exception
        return exception
    end
    return nothing
end
