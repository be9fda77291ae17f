# Opens a saved state, checks it, and saves it again: Julia's part in a ring of languages, in which a file has to come back as it went.
#
#     julia --project=bindings/julia bindings/julia/test/round_trip.jl IN OUT [CLASSES]
#
# Without CLASSES the number is read from the file's own header. Ends with an error where the file cannot be loaded, where what was loaded saves to other
# bytes, or where the statistics and soft labels that are shown are not those in the file. Prints what it sees as tests/ring/run describes it.
using OnlineLabelSmoothing, Printf
const O = OnlineLabelSmoothing

# The header of a safetensors file: its length in 8 bytes, then JSON.
header(bytes) = String(bytes[9:(8 + Int(ltoh(reinterpret(UInt64, bytes[1:8])[1])))])

function classes(text)
    found = match(r"\"soft_labels\":\{\"dtype\":\"F32\",\"shape\":\[(\d+),", text)
    found === nothing && error("there is no tensor soft_labels in the file")
    return parse(Int, found[1])
end

# The bytes of a tensor of the file.
function tensor_bytes(bytes, text, name)
    found = match(Regex("\"$name\":\\{[^}]*\"data_offsets\":\\[(\\d+),(\\d+)\\]"), text)
    start = 8 + ncodeunits(text)
    return bytes[(start + parse(Int, found[1]) + 1):(start + parse(Int, found[2]))]
end

# The line of tests/ring/run: of sums and soft labels, the column of class 1, counted from 0.
function show_state(loss)
    options, seen = O.options(loss), statistics(loss)
    bits = [string(reinterpret(UInt32, value); base = 16, pad = 8) for value in soft_labels(loss)[:, 2]]
    @printf("epoch %d alpha %.6f ignore_index %d counts %s", O.epoch(loss), options.alpha, options.ignore_index, join(seen.counts, " "))
    println(" sums ", join(seen.sums[:, 2], " "), " soft_labels ", join(bits, " "))
    return nothing
end

function main(from, to, K = nothing)
    bytes = read(from)
    # A file that is no state at all is the library's to refuse.
    loss = O.load(from, K !== nothing ? parse(Int, K) : length(bytes) > 8 ? classes(header(bytes)) : 2)
    O.saved(loss) == bytes || error("$from: what was loaded saves to other bytes")
    shown = merge(map(copy, statistics(loss)), (soft_labels = copy(soft_labels(loss)),))
    for (name, values) in pairs(shown)
        reinterpret(UInt8, vec(values)) == tensor_bytes(bytes, header(bytes), name) || error("$from: $name is shown otherwise than it is saved")
    end
    show_state(loss)
    O.save(to, loss)
    close(loss)
    return nothing
end

2 <= length(ARGS) <= 3 || (println(stderr, "usage: round_trip.jl IN OUT [CLASSES]"); exit(2))
main(ARGS...)
