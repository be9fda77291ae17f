# The C compiler, as the truth about the header.

const HEADER = joinpath(dirname(dirname(realpath(OnlineLabelSmoothing.library().path))), "include", "ols.h")

compiler() = get(ENV, "CC", "cc")

# Compiles and runs a C program against the installed header; what it prints.
function run_c(source::String)
    mktempdir() do folder
        file, program = joinpath(folder, "program.c"), joinpath(folder, "program")
        write(file, source)
        run(`$(compiler()) -std=c99 -Werror -I$(dirname(HEADER)) $file -o $program`)
        return read(`$program`, String)
    end
end

# A shared library of a C source, for tests of the loader.
function shared_library(folder::String, name::String, source::String)
    file, library = joinpath(folder, name * ".c"), joinpath(folder, name * ".so")
    write(file, source)
    run(`$(compiler()) -shared -fPIC $file -o $library`)
    return library
end
