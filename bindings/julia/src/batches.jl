# Conversion of the arguments of a call to the library's batch.

# Labels as the library expects them: one number per sample. `name` is y or targets2, for messages.
labels(y::AbstractArray{<:Any,M}, ŷ::AbstractArray{<:Any,N}, ::Int, name::String) where {M,N} = readable(y, Val(1), name)
function labels(y::AbstractArray{<:Any,N}, ŷ::AbstractArray{<:Any,N}, offset::Int, name::String) where {N}
    return N < 2 ? readable(y, Val(1), name) : one_hot_labels(y, ŷ, offset, name)
end
labels(y, ŷ::AbstractArray, ::Int, name::String) = throw(ArgumentError("$name is a $(typeof(y)), but an array of labels or a one-hot array is needed"))

# The labels of a one-hot array of the size of ŷ.
function one_hot_labels(y::AbstractArray{T,N}, ŷ::AbstractArray, offset::Int, name::String) where {T,N}
    if size(y) != size(ŷ)
        throw(DimensionMismatch("$name has size $(size(y)), but ŷ of size $(size(ŷ)) needs labels of size $(label_size(ŷ)) or a one-hot array of size $(size(ŷ))"))
    end
    found = Array{Int64}(undef, label_size(ŷ))
    classes = axes(y, N - 1)
    for sample in axes(y, N), inner in CartesianIndices(axes(y)[1:(N - 2)])
        label = 0
        for (number, class) in enumerate(classes)
            value = y[inner, class, sample]
            iszero(value) && continue
            isone(value) && label == 0 || throw(not_one_hot(name, inner, sample))
            label = number
        end
        label == 0 && throw(not_one_hot(name, inner, sample))
        found[(i - first(r) + 1 for (i, r) in zip(Tuple(inner), axes(y)))..., sample - first(axes(y, N)) + 1] = label - 1 + offset
    end
    return found
end

function not_one_hot(name, inner, sample)
    place = join((Tuple(inner)..., ":", sample), ", ")
    return ArgumentError("$name[$place] is not one-hot: it must be a single 1 among zeros (soft labels cannot be given, because the criterion learns them)")
end

label_size(::AbstractArray{<:Any,0}) = () # the library rejects it
label_size(ŷ::AbstractArray{<:Any,N}) where {N} = (size(ŷ)[1:(N - 2)]..., size(ŷ, N))

# Values per sample, or a single value for all; Float64 represents every Float32 exactly.
per_sample(::Nothing, ::AbstractArray, ::String) = nothing
per_sample(value::Real, ŷ::AbstractArray, ::String) = scalar_input(ŷ, Float64(value))
per_sample(values::AbstractArray, ŷ::AbstractArray, name::String) = readable(values, Val(1), name)
per_sample(value, ::AbstractArray, name::String) = throw(ArgumentError("$name is a $(typeof(value)), but a real number or an array is needed"))

weights_of_samples(values::Union{Nothing,AbstractArray}, ŷ::AbstractArray) = per_sample(values, ŷ, "sample_weights")
weights_of_samples(value, ::AbstractArray) = throw(ArgumentError("sample_weights is a $(typeof(value)), but an array is needed"))

second_labels(::Nothing, ŷ::AbstractArray, ::Int) = nothing
second_labels(y, ŷ::AbstractArray, offset::Int) = labels(y, ŷ, offset, "targets2")

# If dimensions are merged, the library only sees their product, so their sizes are checked here.
@inline function check_inner(values::AbstractArray{<:Any,M}, ŷ::AbstractArray{<:Any,N}, name::String) where {M,N}
    if N > 3 && M > 0 && size(values) != (1,) && size(values) != label_size(ŷ)
        throw(DimensionMismatch("$name has size $(size(values)), but ŷ of size $(size(ŷ)) needs size $(label_size(ŷ))"))
    end
    return nothing
end
@inline check_inner(::Any, ::AbstractArray, ::String) = nothing

# The arguments of a call in a form that the library can read. They must stay alive during the call.
struct Batch{Y,T,W,U,L,G}
    logits::Y
    targets::T
    sample_weights::W
    targets2::U
    lam::L
    grad_loss::G
    target_offset::Int
    flags::UInt32
end

# The keywords that all calls on a batch have in common.
@inline function Batch(
    criterion,
    ŷ::AbstractArray,
    y;
    sample_weights = nothing,
    targets2 = nothing,
    lam = nothing,
    grad_loss = nothing,
    target_offset::Integer = criterion.target_offset,
    update::Symbol = :add,
)
    offset = Int(target_offset)
    batch = Batch(
        readable(ŷ, Val(2), "ŷ"),
        labels(y, ŷ, offset, "y"),
        weights_of_samples(sample_weights, ŷ),
        second_labels(targets2, ŷ, offset),
        per_sample(lam, ŷ, "lam"),
        per_sample(grad_loss, ŷ, "grad_loss"),
        offset,
        update === :add ? UInt32(0) : number_of(UPDATES, update, "update"),
    )
    check_inner(batch.targets, ŷ, "y")
    check_inner(batch.sample_weights, ŷ, "sample_weights")
    check_inner(batch.targets2, ŷ, "targets2")
    check_inner(batch.lam, ŷ, "lam")
    check_inner(batch.grad_loss, ŷ, "grad_loss")
    return batch
end

# `lam_place` and `grad_loss_place` hold those two if they are numbers.
@inline function in_header_form(batch::Batch, lam_place = nothing, grad_loss_place = nothing)
    return ols_batch_t(
        sizeof(ols_batch_t),
        tensor(batch.logits, Val(2)),
        tensor(batch.targets, Val(1)),
        tensor(batch.sample_weights, Val(1)),
        tensor(batch.targets2, Val(1)),
        tensor(batch.lam, Val(1), lam_place),
        tensor(batch.grad_loss, Val(1), grad_loss_place),
        batch.target_offset,
        stream(batch.logits),
        batch.flags,
        0,
    )
end
