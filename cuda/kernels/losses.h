// The reduced loss: an exact integer sum over the samples, independent of the order of the additions and of the grid.
// The last block to finish writes the result.
#pragma once
#include "reduce.h"

// Adds a loss outside the range of the ordinary sum. Rare; one thread per loss.
static DEVICE void add_far_loss(Scratch *scratch, double loss) {
    if (!(loss <= 1.7976931348623157e308)) {
        atomicOr(scratch->far_from_finite + (loss != loss), 1u);
    } else {
        const u64 bits = (u64)__double_as_longlong(loss), fraction = bits & 0x000fffffffffffffull;
        const int exponent = (int)(bits >> 52);
        const u64 mantissa = exponent ? fraction | 0x0010000000000000ull : fraction;
        // Position of the lowest bit of the mantissa.
        const int place = (exponent ? exponent : 1) - 1075 + OLS_FAR_BITS, piece = place / 32, shift = place % 32;
        const u64 low = mantissa << shift, high = shift ? mantissa >> (64 - shift) : 0;
        atomicAdd(scratch->far_losses + piece, low & 0xffffffffu);
        atomicAdd(scratch->far_losses + piece + 1, low >> 32);
        atomicAdd(scratch->far_losses + piece + 2, high);
    }
    atomicOr(&scratch->has_far_losses, 1u);
}

// 2^n for n >= -1022; infinity for n >= 1024.
static DEVICE double power_of_two(int n) { return __longlong_as_double((i64)(n < 1024 ? n + 1023 : 2047) << 52); }

// Returns the sum of the far losses and clears them. For one thread of the last block, after all other blocks have
// added theirs.
static DEVICE double take_far_losses(Scratch *scratch) {
    double sum = 0;
    UNROLL_NOT
    for (int piece = OLS_FAR_PIECES - 1; piece >= 0; --piece) {
        const u64 part = __ldcg(scratch->far_losses + piece);
        scratch->far_losses[piece] = 0;
        const int place = 32 * piece - OLS_FAR_BITS;
        if (part) sum = sum + (double)part * power_of_two(place / 2) * power_of_two(place - place / 2);
    }
    if (__ldcg(scratch->far_from_finite)) sum = Arithmetic<double>::infinity();
    if (__ldcg(scratch->far_from_finite + 1)) sum = Arithmetic<double>::infinity() * 0.0; // NaN
    scratch->far_from_finite[0] = scratch->far_from_finite[1] = 0;
    scratch->has_far_losses = 0;
    return sum;
}

// The losses added by one thread or warp; all zero at first. With f64 logits or weights, where losses may be tiny,
// `rest` collects the remainders below one unit.
template <class Real, bool ANY> struct Losses {
    enum { WIDE = ANY || sizeof(Real) == 8 };
    u64 near_losses, rest;
    bool far;

    // Adds the loss of a sample.
    DEVICE void add(const Pass &pass, double loss) {
        if (loss < 0.0) loss = 0.0; // only invalid (negative) soft labels can lead here
        const bool weighted = is_weighted<ANY>(pass);
        // Smaller losses would lose precision even in the finer units.
        const double least = weighted ? sizeof(Real) == 8 ? 1.52587890625e-05 : 3.637978807091713e-12 : 0.0; // 2^-16, 2^-38
        if (!(loss <= pass.near_loss) || (WIDE && loss < least && loss != 0.0)) {
            far = true;
            add_far_loss(pass.scratch, loss);
        } else if (sizeof(Real) == 4 && !weighted) {
            near_losses += (u64)__double2ll_rn(loss * OLS_LOSS_ONE);
        } else {
            const double units = loss * OLS_LOSS_ONE;
            const i64 whole = (i64)units;
            near_losses += (u64)whole;
            rest += (u64)__double2ll_rn((units - (double)whole) * (OLS_LOSS_REST_ONE / OLS_LOSS_ONE));
        }
    }
    DEVICE void add(const Losses &other) {
        near_losses += other.near_losses;
        if (WIDE) rest += other.rest;
        far = far || other.far;
    }
    // Reduces over the warp; lane 0 gets the result.
    DEVICE void over_lanes() {
        near_losses = warp_sum(near_losses, 32);
        if (WIDE) rest = warp_sum(rest, 32);
        far = __any_sync(WHOLE_WARP, far) != 0;
    }
    // The sum over the warps of a block; call after a barrier.
    static DEVICE Losses over_warps(const Losses *of_warps) {
        Losses sum = of_warps[0];
        UNROLL_NOT
        for (unsigned other = 1; other < blockDim.x / 32; ++other) sum.add(of_warps[other]);
        return sum;
    }

    // Adds the losses of this block to those of the others. Called by thread 0. Returns whether this block was the
    // last, in which case it then holds the sum over all blocks.
    DEVICE bool over_blocks(const Pass &pass) {
        Scratch *scratch = pass.scratch;
        if (gridDim.x == 1) return true;
        if (!WIDE && pass.count <= OLS_LOSSES_IN_ONE && gridDim.x < 1u << OLS_BLOCK_BITS) {
            // A single atomic carries both the sum and the number of blocks. No fence is needed, except for far
            // losses.
            if (far) {
                __threadfence();
                atomicOr(&scratch->losses, (u64)1 << (OLS_SUM_BITS + OLS_BLOCK_BITS));
            }
            const u64 mine = (u64)1 << OLS_SUM_BITS | near_losses, all = atomicAdd(&scratch->losses, mine) + mine;
            if ((all >> OLS_SUM_BITS & ((1u << OLS_BLOCK_BITS) - 1)) != gridDim.x) return false;
            scratch->losses = 0; // reset for the next launch or graph replay
            near_losses = all & (((u64)1 << OLS_SUM_BITS) - 1);
            far = all >> (OLS_SUM_BITS + OLS_BLOCK_BITS) != 0;
            if (far) __threadfence();
            return true;
        }
        if (near_losses) atomicAdd(&scratch->near_losses, near_losses);
        if (WIDE && rest) atomicAdd(&scratch->rest_of_losses, rest);
        if (add_in_turn(&scratch->loss_ticket) != gridDim.x - 1) return false;
        near_losses = __ldcg(&scratch->near_losses);
        if (WIDE) rest = __ldcg(&scratch->rest_of_losses);
        far = __ldcg(&scratch->has_far_losses) != 0;
        scratch->loss_ticket = 0;
        scratch->near_losses = 0;
        if (WIDE) scratch->rest_of_losses = 0;
        return true;
    }

    DEVICE double sum(Scratch *scratch) const {
        double sum = (double)near_losses / OLS_LOSS_ONE;
        if (WIDE) sum = sum + (double)rest / OLS_LOSS_REST_ONE;
        return far ? take_far_losses(scratch) + sum : sum;
    }
};

// Ends a pass by writing the reduced loss. Called by thread 0 with the losses of its block and the divisor of its
// warp. (The first warp of every block has had a sample, so its divisor is known.)
template <class Real, bool ANY> DEVICE void reduce_loss(const Pass &pass, Losses<Real, ANY> losses, const Divisor &divisor) {
    const bool wanted = pass.reduction != REDUCTION_NONE && pass.loss.data, together = pass.divisor == DIVISOR_BY_ALL_BLOCKS;
    if (!(wanted || together) || !losses.over_blocks(pass)) return;
    if (together) {
        pass.scratch->next_slice = 0;
        pass.scratch->counted = 0;
    }
    if (!wanted) return;
    const double sum = losses.sum(pass.scratch);
    // The inverse of a sum of tiny weights could overflow, so divide.
    write_real(pass.loss, Place{0, 0}, divisor.value == 0.0 ? 0.0 : is_weighted<ANY>(pass) ? sum / divisor.value : sum * divisor.inverse);
}
