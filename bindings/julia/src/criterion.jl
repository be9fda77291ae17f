# The criterion, which owns a handle of the library.

"""
    OnlineLabelSmoothingLoss(num_classes; keywords...)
    OnlineLabelSmoothingLoss(f, num_classes; keywords...)

Create a loss that uses Online Label Smoothing (Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on
Image Processing 30, 2021): each class has a soft label, the mean of the distributions that the model predicted in the
previous epoch for those samples of the class that it classified correctly. Call `loss(ŷ, y)` for each batch, and
[`next_epoch!`](@ref)`(loss)` at the end of each epoch. The second form calls `f(loss)` and then closes the criterion.

    loss[n] = -sum_k q[k, n] * log(softmax(ŷ[:, n])[k]),   q[k, n] = alpha * w[y] * (k == y) + (1 - alpha) * w[k] * S[k, y]

# Keywords
The names are those of the library. The defaults, in brackets, are the library's (`ols_options_init`).

- `alpha` [0.5]: weight of the hard label, in [0, 1]; 1 gives cross entropy.
- `initial` [`:smoothing`]: how the soft labels of the first epoch are initialised: `:smoothing`, `:uniform`, `:zero`,
  `:one_hot` or `:matrix`.
- `smoothing` [0.1]: smoothing of `:smoothing`, in [0, 1]; the class itself has `1 - smoothing`.
- `initial_soft_labels`: a `(K, K)` matrix of `Float32` or `Float64`, **one column per class**, finite and >= 0; copied.
  Implies `initial = :matrix`.
- `empty_class` [`:keep`]: the soft label that a class gets at the end of an epoch in which it was not measured:
  `:keep`, `:uniform`, `:initial`, `:one_hot` or `:zero`.
- `min_count` [1]: the number of samples per epoch from which on a class counts as measured.
- `momentum` [0]: the fraction of the old soft label that is kept in the new one, in [0, 1).
- `freeze_above` [Inf]: a class whose largest soft label is at least this value keeps its row from then on. Note that a
  `smoothing` of 0.1 puts 0.9 on the diagonal, so that `freeze_above = 0.88` would freeze every class from the start.
- `class_weights`: w, `K` values of `Float32` or `Float64`, finite and >= 0; copied. The default is 1 for every class.
- `ignore_index` [-100]: samples with this label are ignored.
- `reduction` [`:mean`]: `:mean` (weighted, over all samples that are not ignored), `:sum`, or `:none` (one loss per
  sample).
- `mode` [`:train`]: `:train`, or `:eval`, in which calls change no state; see
  [`OnlineLabelSmoothing.trainmode!`](@ref).
- `preset`: sets `initial`, `smoothing` and `empty_class` as in the PyTorch package (`:reference`) or the authors'
  released code (`:paper`).
- `n_threads` [0: as many as the process may run on]: maximum number of threads that a call uses.
- `device` [`:cpu`], `device_id` [0]: device of the criterion.
- `target_offset` [1]: the label of the first class; use 0 for zero-based labels.
- `soft_labels`, `sums`, `counts`, `counters`: memory for the state: `Matrix{Float32}(K, K)`, `Matrix{Int64}(K, K)`,
  `Vector{Int64}(K)` and `Vector{Int64}(4)`, or views of such arrays. It is used until the criterion is closed; whatever
  is not given is allocated and initialised. With `adopt_state = true` the state that the given memory already holds is
  used instead of being initialised.

A criterion is thread-safe: calls on the same criterion are serialised. Throws an [`OLSError`](@ref) if the library
rejects an option, and an `ArgumentError` for an unknown name. `copy`, `deepcopy` and `Serialization` create a second
criterion with the same state.
"""
mutable struct OnlineLabelSmoothingLoss{reduction}
    # NULL before the library has created the criterion, and after it has been destroyed.
    handle::Ptr{Cvoid}
    # 1 while the criterion is open, plus 1 for each call in progress. Whoever decrements it to 0 destroys the
    # criterion: therefore it can be closed during a call in another thread, and the finalizer needs no lock.
    users::Threads.Atomic{Int}
    is_open::Threads.Atomic{Bool}
    num_classes::Int
    target_offset::Int
    # The memory of the state, kept alive as long as the library uses it.
    state::NamedTuple{(:soft_labels, :sums, :counts, :counters)}
    # Held by a load, which frees the views of ols_get_options and may change the size of the state, while these views
    # are read, and while a state is saved to memory.
    loading::ReentrantLock

    function OnlineLabelSmoothingLoss(options::ols_options_t, state::NamedTuple, target_offset::Integer)
        reduction = symbol_of(REDUCTIONS, options.reduction)
        criterion = new{reduction}(C_NULL, Threads.Atomic{Int}(1), Threads.Atomic{Bool}(true), options.num_classes, target_offset, state, ReentrantLock())
        finalizer(close, criterion)
        # The library writes the handle where the finalizer finds it, so that Ctrl-C loses no handle at any moment.
        GC.@preserve criterion begin
            place = Ptr{Ptr{Cvoid}}(pointer_from_objref(criterion) + fieldoffset(typeof(criterion), 1))
            check(ccall(FUNCTIONS[].ols_create, Int32, (Ref{ols_options_t}, Ptr{Ptr{Cvoid}}), options, place))
        end
        return criterion
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
    changes = Dict{Symbol,Any}(:num_classes => as_option(:num_classes, num_classes))
    set(field, value) = value === nothing || (changes[field] = as_option(field, value))
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

    weights = readable_option(class_weights, Val(1), "class_weights")
    matrix = readable_option(initial_soft_labels, Val(2), "initial_soft_labels")
    device_type, id = get(changes, :device_type, options.device_type), get(changes, :device_id, options.device_id)
    given = (soft_labels = soft_labels, sums = sums, counts = counts, counters = counters)
    # Without any memory there is no state to adopt, which the library reports.
    state = adopt_state && all(isnothing, given) ? given : state_memory(num_classes, device_type, id, given)
    GC.@preserve weights matrix state begin
        changes[:class_weights] = tensor(weights, Val(1))
        changes[:initial_soft_labels] = tensor(matrix, Val(2))
        if adopt_state
            # The library adopts all memory that it is given, so memory that was allocated here is first initialised, by a
            # criterion that has only this memory.
            allocated = map((memory, array) -> memory === nothing ? array : nothing, given, state)
            all(isnothing, allocated) || close(OnlineLabelSmoothingLoss(with_fields(options, merge!(changes, tensors_of(allocated))), allocated, target_offset))
            changes[:flags] = OLS_OPTIONS_ADOPT_STATE
        end
        return OnlineLabelSmoothingLoss(with_fields(options, merge!(changes, tensors_of(state))), state, target_offset)
    end
end

tensors_of(state::NamedTuple) = Dict{Symbol,Any}(name => tensor(memory, Val(length(state_shapes(0)[name][2]))) for (name, memory) in pairs(state))

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

# A number as the type of its field. The library checks the value.
function as_option(field::Symbol, value)
    value isa Real || throw(ArgumentError("$field is a $(typeof(value)), but a real number is needed"))
    type = fieldtype(ols_options_t, field)
    try
        return convert(type, value)
    catch exception
        exception isa InexactError || rethrow()
        throw(ArgumentError("$field = $value cannot be represented as $type"))
    end
end

# The library copies these options, so another copy of an array that it cannot read does no harm.
readable_option(::Nothing, ::Val, ::String) = nothing
function readable_option(array::AbstractArray{<:Real}, ::Val, name::String)
    check_elements(array, name)
    return is_readable(array, Val(ndims(array))) ? array : dense(array)
end
readable_option(value, ::Val, name::String) = throw(ArgumentError("$name is a $(typeof(value)), but an array of real numbers is needed"))

# The memory of the state belongs to Julia, so that S and the statistics are ordinary arrays. The library checks K.
function state_memory(num_classes::Integer, device_type::Int32, device_id::Integer, given::NamedTuple)
    can_allocate = 2 <= num_classes <= typemax(Int32) && haskey(STATE_ALLOCATORS, device_type)
    shapes = state_shapes(can_allocate ? Int(num_classes) : 0)
    return NamedTuple{keys(given)}(map(keys(given)) do name
        given[name] === nothing || return checked_state_memory(given[name], name)
        return can_allocate ? STATE_ALLOCATORS[device_type](shapes[name]..., device_id) : nothing
    end)
end

function checked_state_memory(memory, name::Symbol)
    memory isa AbstractArray || throw(ArgumentError("$name is a $(typeof(memory)), but an array is needed"))
    check_elements(memory, string(name))
    is_readable(memory, Val(ndims(memory))) || throw(ArgumentError("$name is a $(typeof(memory)), but a strided array is needed, as memory for the state"))
    return memory
end

# One function for each kind of device.
const STATE_ALLOCATORS = Dict{Int32,Any}(OLS_DEVICE_CPU => (type, shape, device_id) -> Array{type}(undef, shape))

state_shapes(K::Int) = (soft_labels = (Float32, (K, K)), sums = (Int64, (K, K)), counts = (Int64, (K,)), counters = (Int64, (OLS_COUNTERS,)))

# ==== The handle ====

# Returns the handle for one call, which must be followed by `leave`.
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
    # A precompiled package image contains the object, but NULL instead of the handle.
    isopen(criterion) && throw(InvalidStateException("the OnlineLabelSmoothingLoss was created while a package was precompiled; create it in __init__", :closed))
    throw(InvalidStateException("the OnlineLabelSmoothingLoss is closed", :closed))
end

@noinline function destroy(criterion::OnlineLabelSmoothingLoss)
    criterion.handle == C_NULL && return nothing
    ccall(FUNCTIONS[].ols_destroy, Cvoid, (Ptr{Cvoid},), criterion.handle)
    criterion.handle = C_NULL
    return nothing
end

# Calls `f(handle)` and throws if the returned status is an error.
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

Destroy the criterion. Closing it twice is a no-op; any other use of a closed criterion throws an
`InvalidStateException`. A call in progress in another thread completes first. The arrays of [`soft_labels`](@ref) and
[`statistics`](@ref) remain valid. A criterion that is not closed is destroyed by the garbage collector.
"""
function Base.close(criterion::OnlineLabelSmoothingLoss)
    Threads.atomic_xchg!(criterion.is_open, false) && leave(criterion)
    return nothing
end

Base.isopen(criterion::OnlineLabelSmoothingLoss) = criterion.is_open[]
