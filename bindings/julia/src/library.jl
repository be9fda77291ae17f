# Finds libols and holds its functions. The library is loaded when the first criterion is created; `using` opens no
# file.

const PACKAGE_ID = Base.UUID("5a0c2b7e-3d53-4f0e-9d2b-7c6a2c1f8e41")
const ENVIRONMENT_VARIABLE = "OLS_LIBRARY"
const PREFERENCE = "library"

const FUNCTION_NAMES = (
    :ols_version, :ols_abi_version, :ols_status_string, :ols_last_error, :ols_options_init, :ols_options_preset, :ols_get_options, :ols_batch_init,
    :ols_create, :ols_destroy, :ols_forward, :ols_backward, :ols_accumulate, :ols_statistics, :ols_next_epoch, :ols_report, :ols_soft_labels,
    :ols_set_soft_labels, :ols_set_mode, :ols_mode, :ols_set_alpha, :ols_epoch, :ols_set_epoch, :ols_save, :ols_load, :ols_save_memory, :ols_load_memory,
)

@eval struct Functions
    $((:($name::Ptr{Cvoid}) for name in FUNCTION_NAMES)...)
end

struct Library
    path::String
    functions::Functions
end

# The addresses of the functions; NULL until the library is loaded. (Pointers are stored as NULL in a system image, so
# that programs built from it load the library themselves.)
const FUNCTIONS = Ref(Functions(ntuple(_ -> C_NULL, length(FUNCTION_NAMES))...))
const LIBRARY_PATH = Ref("")
const OPENING = ReentrantLock()
# Set last, so that no thread sees a partly initialised FUNCTIONS.
const IS_OPEN = Threads.Atomic{Bool}(false)

# The library's names in the system's directories. The most specific one, with the ABI number, comes first; before 1.0
# that number includes the minor version, because each may change the ABI.
function system_names()
    number = OLS_ABI_VERSION == 0 ? "$OLS_VERSION_MAJOR.$OLS_VERSION_MINOR" : "$OLS_ABI_VERSION"
    Sys.iswindows() && return ["ols.dll", "libols.dll"]
    Sys.isapple() && return ["libols.$number.dylib", "libols.dylib"]
    return ["libols.so.$number", "libols.so"]
end

# This package's preferences in LocalPreferences.toml and Project.toml, written by hand or by Preferences.jl. Base reads
# them since Julia 1.6.
preferences() = isdefined(Base, :get_preferences) ? Base.get_preferences(PACKAGE_ID) : Dict{String,Any}()

# The files to try, and the reason, for error messages.
function candidates(environment, preferences)
    chosen = get(environment, ENVIRONMENT_VARIABLE, "")
    isempty(chosen) || return [chosen], "set by the environment variable $ENVIRONMENT_VARIABLE"
    preferred = get(preferences, PREFERENCE, "")
    isempty(preferred) || return [preferred], "set by the preference \"$PREFERENCE\""
    return system_names(), "searched in the system's directories, because the environment variable $ENVIRONMENT_VARIABLE and the preference \"$PREFERENCE\" are not set"
end

const OPENING_FLAGS = Libdl.RTLD_LAZY | Libdl.RTLD_LOCAL

open_library(path::AbstractString) = checked_library(Libdl.dlopen(path, OPENING_FLAGS))

# Returns the functions of a loaded library. Its versions are checked before any other call; an incompatible library is
# closed.
function checked_library(handle::Ptr{Cvoid})
    place = Libdl.dlpath(handle)
    symbol(name) = something(Libdl.dlsym(handle, name; throw_error = false), C_NULL)
    try
        symbol(:ols_abi_version) == C_NULL && error("$place is not libols: it has no ols_abi_version")
        abi = ccall(symbol(:ols_abi_version), UInt32, ())
        abi == OLS_ABI_VERSION || error("$place has the ABI version $abi, but OnlineLabelSmoothing.jl was written for $OLS_ABI_VERSION")
        # Before 1.0 the ABI may change with each minor version, without a new ABI version.
        version = VersionNumber(unsafe_string(ccall(symbol(:ols_version), Ptr{UInt8}, ())))
        if abi == 0 && (version.major, version.minor) != (OLS_VERSION_MAJOR, OLS_VERSION_MINOR)
            error("$place is libols $version, but OnlineLabelSmoothing.jl was written for $OLS_VERSION_MAJOR.$OLS_VERSION_MINOR")
        end
        missing_names = filter(name -> symbol(name) == C_NULL, collect(FUNCTION_NAMES))
        isempty(missing_names) || error("$place does not define $(join(missing_names, ", "))")
    catch
        Libdl.dlclose(handle)
        rethrow()
    end
    return Library(place, Functions(map(symbol, FUNCTION_NAMES)...))
end

function find_library(environment = ENV, preferences = preferences())
    paths, reason = candidates(environment, preferences)
    problems = String[]
    for path in paths
        handle = try
            Libdl.dlopen(path, OPENING_FLAGS)
        catch exception
            push!(problems, sprint(showerror, exception))
            continue
        end
        return checked_library(handle)
    end
    error("libols cannot be loaded ($reason): " * join(problems, "; "))
end

# Loads the library before the first call.
function ensure_library()
    IS_OPEN[] && FUNCTIONS[].ols_forward != C_NULL && return nothing
    lock(OPENING) do
        if FUNCTIONS[].ols_forward == C_NULL
            library = find_library()
            LIBRARY_PATH[] = library.path
            FUNCTIONS[] = library.functions
        end
        IS_OPEN[] = true
    end
    return nothing
end

"""
    OnlineLabelSmoothing.library() -> (path, version)

Return the path and version of the loaded libols. Load it first if necessary, from the first of these locations that is
set: the environment variable `OLS_LIBRARY` (a path), the preference `library` of this package (Julia 1.6 and newer),
the system's directories. Throws an `ErrorException` that names the path if the file cannot be loaded, or is a libols
with a different ABI version than this package was written for.
"""
function library()
    ensure_library()
    return (path = LIBRARY_PATH[], version = VersionNumber(unsafe_string(ccall(FUNCTIONS[].ols_version, Ptr{UInt8}, ()))))
end
