# Julia in a separate process.

const PACKAGE = dirname(@__DIR__) |> dirname

# Runs a program; returns whether it succeeded, and its standard output and standard error.
function julia(program::String; environment = Dict{String,String}(), options = ``, project = PACKAGE)
    everything = merge(Dict{String,String}(ENV), environment)
    output = IOBuffer()
    command = `$(Base.julia_cmd()) --startup-file=no --project=$project $options -e $program`
    process = run(pipeline(setenv(ignorestatus(command), everything); stdout = output, stderr = output))
    return (succeeded = success(process), output = String(take!(output)))
end
