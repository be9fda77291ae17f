# The criterion: one owner of one handle.

"""
    OnlineLabelSmoothingLoss(num_classes; keywords...)
    OnlineLabelSmoothingLoss(f, num_classes; keywords...)

The loss of Online Label Smoothing (Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing 30, 2021): each class has a
soft label, the mean of the distributions that the model gave to the samples of that class which it classified right in the epoch before. Call it as
`loss(ŷ, y)` for each batch, and [`next_epoch!`](@ref)`(loss)` at the end of each epoch. The second form closes the criterion after `f(loss)`.

    loss[n] = -sum_k q[k, n] * log(softmax(ŷ[:, n])[k]),   q[k, n] = alpha * w[y] * (k == y) + (1 - alpha) * w[k] * S[k, y]

# Keywords
The library's names; what is not given has the library's default (`ols_options_init`), which is in brackets.

- `alpha` [0.5]: weight of the hard label, in [0, 1]. 1 is cross entropy.
- `initial` [`:smoothing`]: soft labels of the first epoch: `:smoothing`, `:uniform`, `:zero`, `:one_hot`, `:matrix`.
- `smoothing` [0.1]: for `:smoothing`; the class itself has `1 - smoothing`.
- `initial_soft_labels`: a `(K, K)` matrix of `Float32` or `Float64`, **one column per class**, finite and >= 0; copied. Implies `initial = :matrix`.
- `empty_class` [`:keep`]: the next soft label of a class without a right sample in an epoch: `:keep`, `:uniform`, `:initial`, `:one_hot`, `:zero`.
- `min_count` [1], `momentum` [0], `freeze_above` [Inf]: how readily soft labels move. A `smoothing` of 0.1 puts 0.9 on the diagonal, so
  `freeze_above = 0.88` freezes every class at once.
- `class_weights`: w, `K` values of `Float32` or `Float64`, finite and >= 0; copied. Not given: 1 each.
- `ignore_index` [-100]: a sample with this label takes no part.
- `reduction` [`:mean`]: `:mean` (over the weights of the samples that take part), `:sum`, or `:none` (one loss per sample).
- `mode` [`:train`]: or `:eval`, in which a call changes no state; see [`OnlineLabelSmoothing.trainmode!`](@ref).
- `preset`: `:reference` (the PyTorch package) or `:paper` (the authors' released code) for `initial`, `smoothing` and `empty_class`.
- `n_threads` [0: all], `device` [`:cpu`], `device_id` [0].
- `target_offset` [1]: the label of the first class. Labels count from 1 as Julia's indices do; 0 for labels that count from 0.
- `soft_labels`, `sums`, `counts`, `counters`: memory for the state, `Matrix{Float32}(K, K)`, `Matrix{Int64}(K, K)`, `Vector{Int64}(K)` and `Vector{Int64}(4)`
  or views of such; used until the criterion is closed. What is not given is allocated. With `adopt_state = true` the state that they hold is taken over.

Any thread may use a criterion; calls on one wait for each other. Throws an [`OLSError`](@ref) where the library refuses an option, an `ArgumentError` for
a keyword's value that has no name. `copy`, `deepcopy` and `Serialization` make a second criterion with the state of the first.
"""
mutable struct OnlineLabelSmoothingLoss{reduction}
    handle::Ptr{Cvoid}
    # 1 while open, and 1 for each call that is under way: whoever takes the last one away destroys the criterion, so that closing it beside a call in
    # another thread is harmless, and a finalizer needs no lock.
    users::Threads.Atomic{Int}
    is_open::Threads.Atomic{Bool}
    num_classes::Int
    target_offset::Int
    # The memory of the state, kept for as long as the library uses it.
    state::NamedTuple{(:soft_labels, :sums, :counts, :counters)}

    function OnlineLabelSmoothingLoss(options::ols_options_t, state::NamedTuple, target_offset::Integer)
        handle = Ref{Ptr{Cvoid}}(C_NULL)
        reduction = symbol_of(REDUCTIONS, options.reduction)
        check(ccall(FUNCTIONS[].ols_create, Int32, (Ref{ols_options_t}, Ref{Ptr{Cvoid}}), options, handle))
        criterion = new{reduction}(handle[], Threads.Atomic{Int}(1), Threads.Atomic{Bool}(true), options.num_classes, target_offset, state)
        return finalizer(close, criterion)
    end
end

function OnlineLabelSmoothingLoss(
    num_classes::Integer;
    preset = nothing,
    alpha = nothing,
    smoothing = nothing,
    momentum = nothing,
    freeze_above = nothing,
    min_count = nothing,
    ignore_index = nothing,
    initial = nothing,
    empty_class = nothing,
    reduction = nothing,
    mode = nothing,
    device = nothing,
    device_id = nothing,
    n_threads = nothing,
    class_weights = nothing,
    initial_soft_labels = nothing,
    target_offset::Integer = 1,
    soft_labels = nothing,
    sums = nothing,
    counts = nothing,
    counters = nothing,
    adopt_state::Bool = false,
)
    options = default_options(preset)
    changes = Dict{Symbol,Any}(:num_classes => num_classes)
    set(field, value) = value === nothing || (changes[field] = value)
    set(:alpha, alpha)
    set(:smoothing, smoothing)
    set(:momentum, momentum)
    set(:freeze_above, freeze_above)
    set(:min_count, min_count)
    set(:ignore_index, ignore_index)
    set(:device_id, device_id)
    set(:n_threads, n_threads)
    set_named(field, members, value) = value === nothing || (changes[field] = number_of(members, value, string(field)))
    set_named(:initial, INITIALS, initial === nothing && initial_soft_labels !== nothing ? :matrix : initial)
    set_named(:empty_class, EMPTY_CLASSES, empty_class)
    set_named(:reduction, REDUCTIONS, reduction)
    set_named(:mode, MODES, mode)
    device === nothing || (changes[:device_type] = number_of(DEVICES, device, "device"))
    adopt_state && (changes[:flags] = OLS_OPTIONS_ADOPT_STATE)

    weights = readable_option(class_weights, Val(1), "class_weights")
    matrix = readable_option(initial_soft_labels, Val(2), "initial_soft_labels")
    device_type, id = get(changes, :device_type, options.device_type), get(changes, :device_id, options.device_id)
    state = state_memory(num_classes, device_type, id, (soft_labels = soft_labels, sums = sums, counts = counts, counters = counters))
    GC.@preserve weights matrix state begin
        changes[:class_weights] = tensor(weights, Val(1))
        changes[:initial_soft_labels] = tensor(matrix, Val(2))
        changes[:soft_labels] = tensor(state.soft_labels, Val(2))
        changes[:sums] = tensor(state.sums, Val(2))
        changes[:counts] = tensor(state.counts, Val(1))
        changes[:counters] = tensor(state.counters, Val(1))
        return OnlineLabelSmoothingLoss(with_fields(options, changes), state, target_offset)
    end
end

function OnlineLabelSmoothingLoss(f, num_classes::Integer; keywords...)
    criterion = OnlineLabelSmoothingLoss(num_classes; keywords...)
    try
        return f(criterion)
    finally
        close(criterion)
    end
end

function default_options(preset = nothing)
    ensure_library()
    options = Ref{ols_options_t}()
    check(ccall(FUNCTIONS[].ols_options_init, Int32, (Ref{ols_options_t}, Csize_t), options, sizeof(ols_options_t)))
    if preset !== nothing
        check(ccall(FUNCTIONS[].ols_options_preset, Int32, (Ref{ols_options_t}, Int32), options, number_of(PRESETS, preset, "preset")))
    end
    return options[]
end

# The library copies the options, so one more copy of what it could not read harms nobody.
readable_option(::Nothing, ::Val, ::String) = nothing
readable_option(array::AbstractArray{<:Real}, ::Val, ::String) = is_readable(array, Val(ndims(array))) ? array : dense(array)
readable_option(value, ::Val, name::String) = throw(ArgumentError("$name is a $(typeof(value)), but an array of real numbers is needed"))

# The memory of the state is Julia's, so that S and the statistics are arrays like any other. What K is allowed is the library's to say.
function state_memory(num_classes::Integer, device_type::Int32, device_id::Integer, given::NamedTuple)
    can_allocate = 2 <= num_classes <= typemax(Int32) && haskey(STATE_ALLOCATORS, device_type)
    return map(given, state_shapes(can_allocate ? Int(num_classes) : 0)) do memory, (type, shape)
        memory isa Union{Nothing,AbstractArray} || throw(ArgumentError("memory for the state is a $(typeof(memory)), but an array is needed"))
        memory === nothing && return can_allocate ? STATE_ALLOCATORS[device_type](type, shape, device_id) : nothing
        is_readable(memory, Val(ndims(memory))) || throw(ArgumentError("memory for the state is a $(typeof(memory)), which has no memory that libols can walk"))
        return memory
    end
end

# By the kind of device.
const STATE_ALLOCATORS = Dict{Int32,Any}(OLS_DEVICE_CPU => (type, shape, device_id) -> Array{type}(undef, shape))

state_shapes(K::Int) = (soft_labels = (Float32, (K, K)), sums = (Int64, (K, K)), counts = (Int64, (K,)), counters = (Int64, (OLS_COUNTERS,)))

# ==== The handle ====

# The handle for one call, which `leave` has to follow.
@inline function enter(criterion::OnlineLabelSmoothingLoss)
    criterion.handle == C_NULL && throw_closed(criterion)
    users = criterion.users[]
    while criterion.is_open[] && users > 0
        before = Threads.atomic_cas!(criterion.users, users, users + 1)
        before == users && return criterion.handle
        users = before
    end
    throw_closed(criterion)
end

@inline function leave(criterion::OnlineLabelSmoothingLoss)
    Threads.atomic_sub!(criterion.users, 1) == 1 && destroy(criterion)
    return nothing
end

@noinline function throw_closed(criterion::OnlineLabelSmoothingLoss)
    # A package's image keeps the object, and NULL in place of the handle.
    isopen(criterion) && throw(InvalidStateException("the OnlineLabelSmoothingLoss was made while a package was precompiled; make it in __init__", :closed))
    throw(InvalidStateException("the OnlineLabelSmoothingLoss is closed", :closed))
end

@noinline function destroy(criterion::OnlineLabelSmoothingLoss)
    criterion.handle == C_NULL && return nothing
    ccall(FUNCTIONS[].ols_destroy, Cvoid, (Ptr{Cvoid},), criterion.handle)
    criterion.handle = C_NULL
    return nothing
end

# Calls `f(handle)` and throws if the status that it returns is an error.
function call(f, criterion::OnlineLabelSmoothingLoss)
    handle = enter(criterion)
    try
        check(f(handle))
    finally
        leave(criterion)
    end
    return nothing
end

"""
    close(loss::OnlineLabelSmoothingLoss)

Ends the criterion. A second `close` does nothing; every other use afterwards throws an `InvalidStateException`. A call that another thread has under way is
finished first. The arrays of [`soft_labels`](@ref) and [`statistics`](@ref) stay valid. A criterion that is forgotten is closed by the garbage collector.
"""
function Base.close(criterion::OnlineLabelSmoothingLoss)
    Threads.atomic_xchg!(criterion.is_open, false) && leave(criterion)
    return nothing
end

Base.isopen(criterion::OnlineLabelSmoothingLoss) = criterion.is_open[]
