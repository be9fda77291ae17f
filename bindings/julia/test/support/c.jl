# The C compiler, which reads the header.

const HEADER = joinpath(dirname(dirname(realpath(OnlineLabelSmoothing.library().path))), "include", "ols.h")

compiler() = get(ENV, "CC", "cc")

# Compiles and runs a C program with the installed header; returns its output.
function run_c(source::String)
    mktempdir() do folder
        file, program = joinpath(folder, "program.c"), joinpath(folder, "program")
        write(file, source)
        run(`$(compiler()) -std=c99 -Werror -I$(dirname(HEADER)) $file -o $program`)
        return read(`$program`, String)
    end
end

# Compiles C source into a shared library, for tests of loading.
function shared_library(folder::String, name::String, source::String)
    file, library = joinpath(folder, name * ".c"), joinpath(folder, name * ".so")
    write(file, source)
    run(`$(compiler()) -shared -fPIC $file -o $library`)
    return library
end
