# Measures the overhead of a call through this package over a bare C call, at 128 samples of 10 classes: loss, gradient
# and statistics.
#
#     julia --project=bindings/julia bindings/julia/benchmark/overhead.jl [REPETITIONS]
#
# Prints the line of benches/languages/run. The bare call is ols_forward alone, with a batch that was created before.
# Both times are the fastest of many repetitions of 100 calls, which alternate, so that changes of the clock frequency
# affect both.
using OnlineLabelSmoothing
using Printf
const O = OnlineLabelSmoothing

const CALLS = 100

function bare(handle, function_pointer, batch, loss, grad)
    for _ in 1:CALLS
        status = ccall(function_pointer, Int32, (Ptr{Cvoid}, Ref{O.ols_batch_t}, Ref{O.ols_tensor_t}, Ref{O.ols_tensor_t}), handle, batch, loss, grad)
        status == 0 || error("the bare call failed")
    end
    return nothing
end

function wrapped(loss, grad, ŷ, y)
    for _ in 1:CALLS
        loss_and_gradient!(grad, loss, ŷ, y)
    end
    return nothing
end

# Nanoseconds per call.
timed(f, arguments...) = (start = time_ns(); f(arguments...); (time_ns() - start) / CALLS)

function main(repetitions)
    loss = OnlineLabelSmoothingLoss(10)
    ŷ, y = Float32[((7n + 3k) % 11) / 4 - 1 for k in 1:10, n in 1:128], [mod1(n, 10) for n in 1:128]
    grad, value = similar(ŷ), Ref(0.0f0)
    batch = O.Batch(loss, ŷ, y)
    GC.@preserve loss ŷ y grad value batch begin
        given, to_loss, to_grad = Ref(O.in_header_form(batch)), Ref(O.tensor(value, Val(1))), Ref(O.tensor(grad, Val(2)))
        alone = (loss.handle, O.FUNCTIONS[].ols_forward, given, to_loss, to_grad)
        bare(alone...)
        wrapped(loss, grad, ŷ, y)
        allocated = (@allocated wrapped(loss, grad, ŷ, y)) ÷ CALLS
        fastest_bare = fastest_wrapped = Inf
        for _ in 1:repetitions
            fastest_bare = min(fastest_bare, timed(bare, alone...))
            fastest_wrapped = min(fastest_wrapped, timed(wrapped, loss, grad, ŷ, y))
        end
        @printf("Julia\t%.1f\t%.1f\t%.1f\t%d\n", fastest_bare, fastest_wrapped, fastest_wrapped - fastest_bare, allocated)
    end
    return nothing
end

main(parse(Int, get(ARGS, 1, "300")))
