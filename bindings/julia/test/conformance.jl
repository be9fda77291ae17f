# The conformance cases through the public functions. The files' own comment says what each field means.

const FILES = ["epochs", "errors", "layouts", "options", "sizes", "special", "targets", "weights"]

# Cases that Julia cannot express, with the reason.
const NOT_EXPRESSIBLE = Dict{String,String}()

const TYPES = Dict(
    "f32" => Float32, "f64" => Float64, "f16" => Float16, "bf16" => OnlineLabelSmoothing.BFloat16, "i64" => Int64, "i32" => Int32, "u8" => UInt8,
)

real_number(text::String) = parse(Float64, text)
real_numbers(list) = Float64[real_number(text) for text in list]

function splitmix64(seed::Integer, index::Integer)
    z = UInt64(seed) + (UInt64(index) + 1) * 0x9e3779b97f4a7c15
    z = (z ⊻ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ⊻ (z >> 27)) * 0x94d049bb133111eb
    return z ⊻ (z >> 31)
end

# ==== Views: blocks of memory as Julia arrays with the dimensions reversed ====

row_major(shape) = [prod(shape[(d + 1):end]) for d in 1:length(shape)]

function memory(type, view)
    shape = Int[view["shape"]...]
    strides = Int[get(view, "strides", row_major(shape))...]
    length_of_block = get(view, "length", prod(shape))
    block = fill(type(77), length_of_block)
    return Strided(block, get(view, "offset", 0), Tuple(reverse(shape)), Tuple(reverse(strides)))
end

# A plain array if the view is one, as most arrays are.
plain(a::Strided{T,N}) where {T,N} = reshape(a.block, a.sizes)
as_given(a::Strided, view) = haskey(view, "strides") || get(view, "offset", 0) != 0 || haskey(view, "length") ? a : plain(a)

# Julia's linear order of the reversed dimensions is row-major order.
function fill_with!(a::AbstractArray, values)
    length(a) == length(values) || error("$(length(values)) values for $(length(a)) elements")
    for (index, value) in zip(CartesianIndices(a), values)
        a[index] = value
    end
    return a
end

listed(of) = as_given(fill_with!(memory(TYPES[of["dtype"]], of["view"]), listed_values(TYPES[of["dtype"]], of["values"])), of["view"])
listed_values(type::Type{<:Integer}, values) = type[values...]
listed_values(type, values) = type.(real_numbers(values))

function logit_values(logits)
    shape, strides = Int[logits["view"]["shape"]...], get(logits["view"], "strides", nothing)
    raised = Set{Int}(get(logits, "raised", []))
    replaced = Dict{Int,Float64}(index => real_number(value) for (index, value) in get(logits, "set", []))
    return map(0:(prod(shape) - 1)) do flat
        haskey(replaced, flat) && return replaced[flat]
        number, rest, step = 0, flat, 1
        for d in length(shape):-1:1
            rest, index = divrem(rest, shape[d])
            number += strides !== nothing && strides[d] == 0 ? 0 : index * step
            step *= shape[d]
        end
        m = Int((splitmix64(logits["seed"], number) >> 33) % 255) - 127
        get(logits, "absolute", false) && (m = abs(m))
        return ldexp(Float64(m + (flat in raised ? 128 : 0)), logits["exponent"])
    end
end

logits_array(logits) = as_given(fill_with!(memory(TYPES[logits["dtype"]], logits["view"]), TYPES[logits["dtype"]].(logit_values(logits))), logits["view"])

block_of(a::Strided) = a.block
block_of(a::Array) = vec(a)
raw(values) = copy(reinterpret(UInt8, collect(values)))

# ==== Comparisons ====

function problem_with(name, found, expected)
    at = get(expected, "at", nothing)
    values = expected["values"]
    at === nothing && length(found) != length(values) && return "$name has $(length(found)) values instead of $(length(values))"
    atol, rtol = tolerance(expected["atol"]), real_number(expected["rtol"])
    for (number, text) in enumerate(values)
        index = at === nothing ? number : at[number] + 1
        want, got = tolerance(text), Float64(found[index])
        same = isnan(want) ? isnan(got) : isinf(want) ? got == want : abs(got - want) <= atol + rtol * abs(want)
        same || return "$name[$(index - 1)] = $got differs from $want"
    end
    return nothing
end
tolerance(text::String) = real_number(text)
tolerance(number::Integer) = Float64(number)

# Compares the outcome of a call with the expected error.
function outcome(f, expected)
    try
        f()
    catch exception
        exception isa OLSError || rethrow()
        expected === nothing && return "failed: $exception"
        got = string(OnlineLabelSmoothing.status(exception))
        got == expected["kind"] || return "failed with $got ($(exception.message)) instead of $(expected["kind"])"
        occursin(get(expected, "message", ""), exception.message) || return "the message $(exception.message) does not contain $(expected["message"])"
        return nothing
    end
    return expected === nothing ? nothing : "passed, but $(expected["kind"]) was expected"
end

# ==== Steps ====

function criterion_of(options)
    initial = options["initial"]
    keywords = Dict{Symbol,Any}(
        :alpha => real_number(options["alpha"]),
        :empty_class => Symbol(options["empty_class"]),
        :min_count => options["min_count"],
        :momentum => real_number(options["momentum"]),
        :ignore_index => options["ignore_index"],
        :reduction => Symbol(options["reduction"]),
        :mode => Symbol(options["mode"]),
    )
    options["freeze_above"] === nothing || (keywords[:freeze_above] = real_number(options["freeze_above"]))
    options["class_weights"] === nothing || (keywords[:class_weights] = real_numbers(options["class_weights"]))
    if initial isa String
        keywords[:initial] = Symbol(initial)
    elseif haskey(initial, "smoothing")
        keywords[:initial], keywords[:smoothing] = :smoothing, real_number(initial["smoothing"])
    else
        values, K = Float32.(real_numbers(initial["matrix"])), options["classes"]
        rows = length(values) ÷ max(K, 1) # may differ from K if creation is expected to fail
        keywords[:initial_soft_labels] = reshape(values[1:(rows * K)], K, rows)
    end
    return OnlineLabelSmoothingLoss(options["classes"]; keywords...)
end

function run_batch(criterion, case, step, check)
    given = case["batches"][step["batch"] + 1]
    logits = logits_array(given["logits"])
    arguments = Dict{Symbol,Any}(:target_offset => get(given, "target_offset", 0))
    for name in ("sample_weights", "targets2", "lam", "grad_loss")
        haskey(given, name) && (arguments[Symbol(name)] = listed(given[name]))
    end
    haskey(step, "update") && (arguments[:update] = Symbol(step["update"]))
    targets = listed(given["targets"])
    type = eltype(logits)
    output(name, type) = haskey(step, name) ? as_given(memory(type, step[name]), step[name]) : nothing
    loss = output("loss", type === Float64 ? Float64 : Float32)
    grad = get(step, "in_place", false) ? logits : output("grad", type)
    outputs = [("loss", loss), ("grad", grad)]
    before = [array === nothing ? nothing : raw(block_of(array)) for (_, array) in outputs]
    state = OnlineLabelSmoothing.saved(criterion)
    expected = step["expect"]
    failure = get(expected, "error", nothing)
    check(outcome(failure) do
        if step["do"] == "forward"
            OnlineLabelSmoothing.forward!(criterion, logits, targets; value = loss, grad = grad, arguments...)
        elseif step["do"] == "backward"
            OnlineLabelSmoothing.backward!(grad, criterion, logits, targets; arguments...)
        else
            OnlineLabelSmoothing.accumulate_probabilities!(criterion, logits, targets; arguments...)
        end
    end)
    failure === nothing || check(state == OnlineLabelSmoothing.saved(criterion) ? nothing : "the state changed with an error")
    for ((name, array), bytes) in zip(outputs, before)
        array === nothing && continue
        after = raw(block_of(array))
        if failure === nothing && array isa Strided
            size = sizeof(eltype(array))
            for index in CartesianIndices(array), byte in 1:size
                k = (place(array, Tuple(index)) - 1) * size + byte
                bytes[k] = after[k]
            end
        end
        (failure === nothing && !(array isa Strided)) || check(bytes == after ? nothing : "$name: memory was written that is no part of the output")
    end
    failure === nothing || return nothing
    haskey(expected, "loss") && check(problem_with("loss", Float64.(vec(collect(loss))), expected["loss"]))
    if grad !== nothing
        values = Float64.(vec(collect(grad)))
        haskey(expected, "grad") && check(problem_with("grad", values, expected["grad"]))
        haskey(expected, "grad_abs_sum") && check(problem_with("grad_abs_sum", [isempty(values) ? 0.0 : sum(abs, values)], expected["grad_abs_sum"]))
    end
    return nothing
end

function run_step(criterion, case, step, check)
    action, failure = step["do"], get(step["expect"], "error", nothing)
    if action in ("forward", "backward", "accumulate")
        run_batch(criterion, case, step, check)
    elseif action == "next_epoch"
        check(outcome(() -> next_epoch!(criterion), failure))
    elseif action == "set_mode"
        check(outcome(() -> OnlineLabelSmoothing.trainmode!(criterion, step["mode"] == "train"), failure))
    elseif action == "set_alpha"
        check(outcome(() -> OnlineLabelSmoothing.set_alpha!(criterion, real_number(step["alpha"])), failure))
    elseif action == "set_soft_labels"
        values, K = Float32.(real_numbers(step["values"])), criterion.num_classes
        matrix = reshape(values[1:(length(values) ÷ K * K)], length(values) ÷ K, K)
        check(outcome(() -> OnlineLabelSmoothing.set_soft_labels!(criterion, matrix), failure))
    elseif action == "save_load"
        mode = OnlineLabelSmoothing.istraining(criterion) ? :train : :eval
        other = OnlineLabelSmoothingLoss(criterion.num_classes; reduction = Symbol(case["options"]["reduction"]), mode = mode)
        OnlineLabelSmoothing.load!(other, OnlineLabelSmoothing.saved(criterion))
        close(criterion)
        criterion = other
    else
        error("unknown action $action")
    end
    return criterion
end

function check_state(criterion, expected, check)
    sums, counts = statistics(criterion)
    happened = report(criterion)
    haskey(expected, "counts") && check(counts == expected["counts"] ? nothing : "counts: $counts differs from $(expected["counts"])")
    haskey(expected, "sums") && check(problem_with("sums", vec(sums), expected["sums"]))
    haskey(expected, "soft_labels") && check(problem_with("soft_labels", vec(soft_labels(criterion)), expected["soft_labels"]))
    numbers = Any[("epoch", OnlineLabelSmoothing.epoch(criterion)), ("samples_skipped", happened.running_samples_skipped)]
    for (name, got) in numbers
        haskey(expected, name) && check(got == expected[name] ? nothing : "$name: $got differs from $(expected[name])")
    end
    for (name, want) in get(expected, "report", Dict())
        got = happened[Symbol(name)]
        check(got == want ? nothing : "report.$name: $got differs from $want")
    end
    return nothing
end

# All problems of a case.
function run_case(case)
    problems = String[]
    number = 0
    check(problem) = problem === nothing || push!(problems, "step $number: $problem")
    criterion = nothing
    check(outcome(() -> criterion = criterion_of(case["options"]), get(case, "error", nothing)))
    criterion === nothing && return problems
    for step in get(case, "steps", [])
        criterion = run_step(criterion, case, step, check)
        check_state(criterion, step["expect"], check)
        number += 1
    end
    close(criterion)
    return problems
end

@testset "r27 conformance" begin
    folder = joinpath(REPOSITORY, "tests", "vectors")
    @test sort(readdir(folder)) == sort(FILES .* ".json")
    @test splitmix64(0, 0) == 0xe220a8397b1dcdaf && splitmix64(7, 3) == 0x953aeb70673e29cb
    cases_run, skipped, an_example = 0, String[], nothing
    for file in FILES
        contents = Json.parse_file(joinpath(folder, file * ".json"))
        @test contents["format"] == 1
        for case in contents["cases"]
            name = "$file/$(case["name"])"
            if haskey(NOT_EXPRESSIBLE, name)
                push!(skipped, "$name: $(NOT_EXPRESSIBLE[name])")
                continue
            end
            problems = run_case(case)
            isempty(problems) || foreach(problem -> println(name, ": ", problem), problems)
            @test isempty(problems)
            cases_run += 1
            name == "sizes/k7-f32" && (an_example = case)
        end
    end
    println("conformance: $cases_run cases; not expressible in Julia: ", isempty(skipped) ? "none" : join(skipped, "; "))
    @test cases_run > 300
    @test length(skipped) == length(NOT_EXPRESSIBLE)

    @testset "r28 a changed number of each kind is found" begin
        changed(path...) = (case = deepcopy(an_example); expected = case["steps"][1]["expect"]; expected[path[1]][path[2]][1] = path[3]; run_case(case))
        @test isempty(run_case(an_example))
        @test !isempty(changed("loss", "values", "0x1p+0"))
        @test !isempty(changed("grad", "values", "0x1p+0"))
        @test !isempty(changed("sums", "values", 5))
        counts = deepcopy(an_example)
        counts["steps"][1]["expect"]["counts"][1] += 1
        @test !isempty(run_case(counts))
    end
end
