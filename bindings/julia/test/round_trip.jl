# Loads a saved state, checks it, and saves it again. It is Julia's part in a ring of languages, in which a file must come
# back unchanged.
#
#     julia --project=bindings/julia bindings/julia/test/round_trip.jl IN OUT [CLASSES]
#
# Without CLASSES the number of classes is read from the header of the file. Fails if the file cannot be loaded, if the
# loaded criterion saves different bytes, or if the statistics and soft labels that it exposes are not those in the file.
# Prints what it sees in the format described in tests/ring/run.
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

# The line described in tests/ring/run: of the sums and soft labels, the column of class 1 (zero-based).
function show_state(loss)
    options, seen = O.options(loss), statistics(loss)
    bits = [string(reinterpret(UInt32, value); base = 16, pad = 8) for value in soft_labels(loss)[:, 2]]
    @printf("epoch %d alpha %.6f ignore_index %d counts %s", O.epoch(loss), options.alpha, options.ignore_index, join(seen.counts, " "))
    println(" sums ", join(seen.sums[:, 2], " "), " soft_labels ", join(bits, " "))
    return nothing
end

function main(from, to, K = nothing)
    bytes = read(from)
    # The library rejects a file that is not a saved state.
    loss = O.load(from, K !== nothing ? parse(Int, K) : length(bytes) > 8 ? classes(header(bytes)) : 2)
    O.saved(loss) == bytes || error("$from: the loaded criterion saves different bytes")
    shown = merge(map(copy, statistics(loss)), (soft_labels = copy(soft_labels(loss)),))
    for (name, values) in pairs(shown)
        reinterpret(UInt8, vec(values)) == tensor_bytes(bytes, header(bytes), name) || error("$from: $name differs from what is saved")
    end
    show_state(loss)
    O.save(to, loss)
    close(loss)
    return nothing
end

2 <= length(ARGS) <= 3 || (println(stderr, "usage: round_trip.jl IN OUT [CLASSES]"); exit(2))
main(ARGS...)
