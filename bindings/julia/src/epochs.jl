# What is learned: statistics, the end of an epoch, soft labels.

function memory_of(criterion::OnlineLabelSmoothingLoss, name::Symbol)
    isopen(criterion) || throw_closed(criterion)
    memory = criterion.state[name]
    memory === nothing && error("$name is in device memory that libols allocated; load CUDA.jl before creating the criterion, or pass memory for $name")
    return memory
end

"""
    statistics(loss) -> (sums, counts, counters)

Return the statistics of the current epoch, in place: writing to these arrays changes the statistics. `sums` has the
size `(K, K)`, one column per class, and holds summed probabilities in units of 2^-30; `counts` `(K,)` is the number of
samples in each column; the first of the `counters` `(4,)` is the number of rows that were skipped because they are not
finite. All values are `Int64`, so that sums over batches, threads and workers are exact in any order: sum all three
arrays over the workers (MPI, Distributed) before [`next_epoch!`](@ref), and every worker gets the same soft labels, bit
for bit. Do not access the arrays while another thread is in a call on the criterion.
"""
function statistics(criterion::OnlineLabelSmoothingLoss)
    return (sums = memory_of(criterion, :sums), counts = memory_of(criterion, :counts), counters = memory_of(criterion, :counters))
end

"""
    soft_labels(loss) -> S

Return the soft labels S, a `(K, K)` array of `Float32`, in place: **column `j` is the soft label of class `j`**, and
sums to 1 once the class has been measured. The array always shows the current S; use `copy` to keep it. It may be
modified between calls (finite, >= 0); [`OnlineLabelSmoothing.set_soft_labels!`](@ref) also checks the values.
"""
function soft_labels(criterion::OnlineLabelSmoothingLoss)
    return memory_of(criterion, :soft_labels)
end

"""
    OnlineLabelSmoothing.set_soft_labels!(loss, S) -> loss

Replace the soft labels by a copy of `S`: `(K, K)`, one column per class, `Float32` or `Float64`, finite and >= 0.
Columns need not sum to 1.
"""
function set_soft_labels!(criterion::OnlineLabelSmoothingLoss, S::AbstractMatrix)
    matrix = readable(S, Val(2), "S")
    GC.@preserve matrix begin
        given = Ref(tensor(matrix, Val(2)))
        on = stream(matrix)
        call(handle -> ccall(FUNCTIONS[].ols_set_soft_labels, Int32, (Ptr{Cvoid}, Ref{ols_tensor_t}, Ptr{Cvoid}), handle, given, on), criterion)
    end
    return criterion
end

"""
    next_epoch!(loss) -> loss

End the epoch: compute the soft labels of the next epoch from the statistics, then reset the statistics (Zhang et al.
2021, equations 4 and 5). Call it after the last batch of an epoch; with several workers, sum their [`statistics`](@ref)
first. If nothing was accumulated, the soft labels are unchanged. [`report`](@ref) returns a summary.
"""
function next_epoch!(criterion::OnlineLabelSmoothingLoss)
    on = stream_of_state(criterion)
    call(handle -> ccall(FUNCTIONS[].ols_next_epoch, Int32, (Ptr{Cvoid}, Ptr{Cvoid}), handle, on), criterion)
    return criterion
end

# The stream on which the memory of the state is used; NULL for host memory.
stream_of_state(criterion::OnlineLabelSmoothingLoss) = criterion.state.soft_labels === nothing ? C_NULL : stream(criterion.state.soft_labels)

"""
    report(loss) -> NamedTuple

Return a summary of the last completed epoch (`epoch`, `rows_measured`, `rows_kept`, `rows_uniform`, `rows_initial`,
`rows_one_hot`, `rows_zero`, `rows_frozen`, `samples_accumulated`, `samples_skipped`, `classes_full`,
`targets_out_of_range`) and of the current epoch so far (the names that begin with `running_`). A row is the soft label
of a class; the `rows_` numbers add up to K.
"""
function report(criterion::OnlineLabelSmoothingLoss)
    given = Ref(ols_report_t(sizeof(ols_report_t), ntuple(_ -> 0, fieldcount(ols_report_t) - 1)...))
    on = stream_of_state(criterion)
    call(handle -> ccall(FUNCTIONS[].ols_report, Int32, (Ptr{Cvoid}, Ptr{Cvoid}, Ref{ols_report_t}), handle, on, given), criterion)
    names = fieldnames(ols_report_t)[2:end]
    return NamedTuple{names}(map(name -> Int(getfield(given[], name)), names))
end
