// What comes with a row of logits: targets, weights, lam; and the mean's divisor over them.
#pragma once
#include "numbers.h"

struct Place { i64 outer, inner; };

// ANY, here and below: what few batches need may be needed. Without it there are fewer than 2^31 samples, each with one target and nothing else, and an
// offset of less than 2^31.
template <bool ANY> DEVICE Place place_of(const Pass &pass, i64 sample) {
    if (pass.inner == 1) return Place{sample, 0};
    if (!ANY || (u64)pass.count >> 32 == 0) { // 32-bit division is several times faster
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
    return from.dtype == DTYPE_F64 ? reinterpret_cast<const double *>(from.data)[index] : (double)reinterpret_cast<const float *>(from.data)[index];
}

static DEVICE void write_real(const PerSample &to, Place at, double value) {
    i64 index = at.outer * to.outer + at.inner * to.inner;
    if (to.dtype == DTYPE_F64) reinterpret_cast<double *>(to.data)[index] = value;
    else reinterpret_cast<float *>(to.data)[index] = (float)value;
}

struct Sample {
    bool takes_part;
    bool out_of_range; // a target is neither a class nor the ignore index
    bool invalid;      // a weight or lam that breaks its rule: loss and gradient are NaN
    int first, second; // classes; 0 where the sample takes no part
    double lam, weight;
    // The class that the statistics mean: that of the larger lam, the first at 0.5.
    DEVICE int counted() const { return lam >= 0.5 ? first : second; }
};

template <bool ANY> DEVICE Sample read_sample(const Pass &pass, Place at) {
    i64 first = read_integer(pass.targets, at);
    i64 second = ANY && pass.targets2.data ? read_integer(pass.targets2, at) : first;
    double weight = ANY && pass.weights.data ? read_real(pass.weights, at) : 1.0;
    double lam = ANY && pass.lam.data ? read_real(pass.lam, at) : 1.0;
    bool ignored = first == pass.ignore_index || second == pass.ignore_index;
    // Unsigned: what is below the offset becomes huge, and no difference overflows.
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

// The same of a usual sample, whose target is known.
static DEVICE Sample usual_sample(const Pass &pass, i64 target) {
    const bool ignored = target == pass.ignore_index;
    // Unsigned: what is below the offset becomes huge. The offset is small, so nothing comes around.
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

// Whether the mean's divisor is anything but a count.
template <bool ANY> DEVICE bool is_weighted(const Pass &pass) { return ANY && (pass.weights.data || pass.class_weights); }

// The sample at this place, which may lie behind the last one, and whose target is known where ANY is not; one thread's `counts` says that it counts
// targets out of range.
template <bool ANY> DEVICE Sample begin_sample(const Pass &pass, bool there, Place at, i64 target, bool counts) {
    Sample sample = Sample();
    if (there) sample = ANY ? read_sample<ANY>(pass, at) : usual_sample(pass, target);
    if (counts && sample.out_of_range && pass.count_targets) add_i64(pass.state.counters + COUNTER_OUT_OF_RANGE, 1);
    return sample;
}

// Where a sample's row begins.
template <class T> DEVICE T *row_at(const Rows &rows, Place at) {
    return reinterpret_cast<T *>(rows.data) + (at.outer * rows.outer + at.inner * rows.inner);
}

// v*w[y], the share of a sample in the mean's divisor.
static DEVICE double divisor_share(const Pass &pass, i64 index) {
    Sample sample = read_sample<true>(pass, place_of<true>(pass, index));
    if (!sample.takes_part) return 0.0;
    if (sample.invalid) return (double)Arithmetic<float>::infinity() * 0.0; // NaN
    double of_class = pass.class_weights ? sample.lam * pass.class_weights[sample.first] + (1.0 - sample.lam) * pass.class_weights[sample.second] : 1.0;
    return sample.weight * of_class;
}

// Of the samples from `begin` on, in steps: how many take part, each with one target and nothing else. FLAT: pass.inner is 1. AHEAD: several
// are asked for at once, for which there are no registers in the midst of a row.
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
