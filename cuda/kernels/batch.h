// Per-sample inputs of a batch (targets, weights, lam) and the divisor of the mean.
#pragma once
#include "numbers.h"

struct Place { i64 outer, inner; };

// ANY, here and below, selects the general form of a kernel. The usual form (ANY = false) assumes fewer than 2^31 samples
// with one target each, no weights, lam or grad_loss, and a target offset below 2^31 in magnitude.
template <bool ANY> DEVICE Place place_of(const Pass &pass, i64 sample) {
    if (pass.inner == 1) return Place{sample, 0};
    if (!ANY || (u64)pass.count >> 32 == 0) { // 32-bit division is several times as fast
        unsigned outer = (unsigned)sample / (unsigned)pass.inner;
        return Place{(i64)outer, (i64)((unsigned)sample - outer * (unsigned)pass.inner)};
    }
    return Place{sample / pass.inner, sample % pass.inner};
}

static DEVICE i64 read_integer(const PerSample &from, Place at) {
    i64 index = at.outer * from.outer + at.inner * from.inner;
    if (from.dtype == DTYPE_I64) return reinterpret_cast<const i64 *>(from.data)[index];
    if (from.dtype == DTYPE_I32) return reinterpret_cast<const int *>(from.data)[index];
    return reinterpret_cast<const unsigned char *>(from.data)[index];
}

static DEVICE double read_real(const PerSample &from, Place at) {
    i64 index = at.outer * from.outer + at.inner * from.inner;
    if (from.dtype == DTYPE_F64) return reinterpret_cast<const double *>(from.data)[index];
    return (double)reinterpret_cast<const float *>(from.data)[index];
}

static DEVICE void write_real(const PerSample &to, Place at, double value) {
    i64 index = at.outer * to.outer + at.inner * to.inner;
    if (to.dtype == DTYPE_F64) reinterpret_cast<double *>(to.data)[index] = value;
    else reinterpret_cast<float *>(to.data)[index] = (float)value;
}

struct Sample {
    bool takes_part;
    bool out_of_range; // a target is neither a class nor ignore_index
    bool invalid;      // a weight or lam violates its rule: loss and gradient are NaN
    int first, second; // classes; 0 if the sample does not take part
    double lam, weight;
    // The class that the statistics count: that of the larger lam, the first one at 0.5.
    DEVICE int counted() const { return lam >= 0.5 ? first : second; }
};

template <bool ANY> DEVICE Sample read_sample(const Pass &pass, Place at) {
    i64 first = read_integer(pass.targets, at);
    i64 second = ANY && pass.targets2.data ? read_integer(pass.targets2, at) : first;
    double weight = ANY && pass.weights.data ? read_real(pass.weights, at) : 1.0;
    double lam = ANY && pass.lam.data ? read_real(pass.lam, at) : 1.0;
    bool ignored = first == pass.ignore_index || second == pass.ignore_index;
    // Unsigned, so that targets below the offset become huge and the subtraction cannot overflow.
    u64 first_class = (u64)first - (u64)pass.target_offset, second_class = (u64)second - (u64)pass.target_offset;
    bool first_bad = first != pass.ignore_index && (first < pass.target_offset || first_class >= (u64)pass.classes);
    bool second_bad = second != pass.ignore_index && (second < pass.target_offset || second_class >= (u64)pass.classes);
    Sample sample;
    sample.out_of_range = first_bad || second_bad;
    sample.takes_part = !ignored && !sample.out_of_range && weight != 0.0;
    sample.invalid = !(weight >= 0.0 && weight <= 1.7976931348623157e308) || !(lam >= 0.0 && lam <= 1.0);
    sample.first = sample.takes_part ? (int)first_class : 0;
    sample.second = sample.takes_part ? (int)second_class : 0;
    sample.lam = lam;
    sample.weight = weight;
    return sample;
}

// The same for a sample of the usual form whose target has already been loaded.
static DEVICE Sample usual_sample(const Pass &pass, i64 target) {
    const bool ignored = target == pass.ignore_index;
    // Unsigned, so that targets below the offset become huge. The offset is small, so the difference cannot wrap
    // around into the range of classes.
    const u64 target_class = (u64)target - (u64)pass.target_offset;
    Sample sample;
    sample.out_of_range = !ignored && target_class >= (u64)pass.classes;
    sample.takes_part = !ignored && target_class < (u64)pass.classes;
    sample.invalid = false;
    sample.first = sample.second = sample.takes_part ? (int)target_class : 0;
    sample.lam = sample.weight = 1.0;
    return sample;
}

template <> DEVICE Sample read_sample<false>(const Pass &pass, Place at) { return usual_sample(pass, read_integer(pass.targets, at)); }

// Whether the divisor of the mean is more than a count of samples.
template <bool ANY> DEVICE bool is_weighted(const Pass &pass) { return ANY && (pass.weights.data || pass.class_weights); }

// The sample at `at`; an empty one unless `there`. The usual form takes the target that has already been loaded.
// `counts` is true in one thread per sample, which counts targets out of range.
template <bool ANY> DEVICE Sample begin_sample(const Pass &pass, bool there, Place at, i64 target, bool counts) {
    Sample sample = Sample();
    if (there) sample = ANY ? read_sample<ANY>(pass, at) : usual_sample(pass, target);
    if (counts && sample.out_of_range && pass.count_targets) add_i64(pass.state.counters + COUNTER_OUT_OF_RANGE, 1);
    return sample;
}

// Pointer to the row of a sample.
template <class T> DEVICE T *row_at(const Rows &rows, Place at) {
    return reinterpret_cast<T *>(rows.data) + (at.outer * rows.outer + at.inner * rows.inner);
}

// v*w[y]: what a sample contributes to the divisor of the mean.
static DEVICE double divisor_share(const Pass &pass, i64 index) {
    Sample sample = read_sample<true>(pass, place_of<true>(pass, index));
    if (!sample.takes_part) return 0.0;
    if (sample.invalid) return (double)Arithmetic<float>::infinity() * 0.0; // NaN
    const double *weights = pass.class_weights;
    const double of_class = weights ? sample.lam * weights[sample.first] + (1.0 - sample.lam) * weights[sample.second] : 1.0;
    return sample.weight * of_class;
}

// Counts the samples begin, begin + step, ... below end that take part (usual form). FLAT: pass.inner is 1. AHEAD:
// unroll, to keep several loads in flight; not while a row is live, when there are no registers to spare.
template <bool FLAT, bool AHEAD = true> DEVICE unsigned count_targets(const Pass &pass, unsigned begin, unsigned end, unsigned step) {
    unsigned taking = 0;
    const auto take = [&](unsigned index) {
        taking += read_sample<false>(pass, FLAT ? Place{index, 0} : place_of<false>(pass, index)).takes_part;
    };
    if constexpr (AHEAD) {
        UNROLL_BY_FOUR
        for (unsigned index = begin; index < end; index += step) take(index);
    } else {
        UNROLL_NOT
        for (unsigned index = begin; index < end; index += step) take(index);
    }
    return taking;
}
