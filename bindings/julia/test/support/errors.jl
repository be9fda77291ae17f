# Returns the exception that a call throws, or nothing.
function error_of(f)
    try
        f()
    catch exception
        return exception
    end
    return nothing
end
