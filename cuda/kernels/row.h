// What a pass computes for a row apart from the reductions over its classes: q, the loss and the gradient. Shared by all
// ways of distributing rows over threads.
#pragma once
#include "statistics.h"

// q of a row: the soft part, computed class by class, and the hard part, which is nonzero for at most two classes.
// Only the general form (ANY) has class weights and second targets.
template <class Real, bool ANY> struct SoftLabel {
    const float *first_row, *second_row;
    Real first_scale, second_scale;
    bool two;
    const void *weights;
    double weight_scale;
    int classes[2];
    double hard[2];

    DEVICE SoftLabel(const Pass &pass, const Sample &sample) {
        // If both targets are the same, lam does not affect q.
        two = ANY && sample.first != sample.second;
        const double lam = two ? sample.lam : 1.0;
        first_row = pass.state.soft_labels + (i64)sample.first * pass.state.soft_labels_stride;
        second_row = pass.state.soft_labels + (i64)sample.second * pass.state.soft_labels_stride;
        first_scale = (Real)(lam * (1.0 - pass.alpha));
        second_scale = (Real)((1.0 - lam) * (1.0 - pass.alpha));
        weights = !ANY ? nullptr : sizeof(Real) == 8 ? (const void *)pass.scaled_weights : (const void *)pass.scaled_weights32;
        weight_scale = weighted() ? pass.weight_scale : 1.0;
        classes[0] = sample.first;
        classes[1] = sample.second;
        hard[0] = lam * pass.alpha * (weighted() ? pass.class_weights[sample.first] : 1.0);
        hard[1] = two ? (1.0 - lam) * pass.alpha * (weighted() ? pass.class_weights[sample.second] : 1.0) : 0.0;
    }
    DEVICE bool mixed() const { return ANY && two; }
    DEVICE bool weighted() const { return ANY && weights; }
    DEVICE Real weight(int k) const { return reinterpret_cast<const Real *>(weights)[k]; }
    // The soft part of q / weight_scale / scale() for class k, where `entry` is the entry of the first row of S.
    // Without second targets and weights, that is `entry` itself.
    DEVICE Real part(float entry, int k) const {
        if (!mixed() && !weighted()) return (Real)entry;
        Real q = (Real)entry * first_scale;
        if (mixed()) q = Arithmetic<Real>::fma((Real)__ldg(second_row + k), second_scale, q);
        return weighted() ? q * weight(k) : q;
    }
    DEVICE Real scale() const { return mixed() || weighted() ? (Real)1 : first_scale; }
    // The soft part of q / weight_scale from the same numbers, in f64, for the entry of a target.
    DEVICE double wide(float entry, int k) const {
        double q = (double)entry * (double)first_scale;
        if (mixed()) q = q + (double)__ldg(second_row + k) * (double)second_scale;
        return weighted() ? q * (double)weight(k) : q;
    }
};

// The logits at the targets of a row; 0 if the sample does not take part.
template <class Real> struct AtTargets {
    Real logit[2];

    template <class T, bool ANY>
    DEVICE AtTargets(const Sample &sample, const SoftLabel<Real, ANY> &soft, const T *logits, i64 step) : logit{0, 0} {
        if (!sample.takes_part) return;
        logit[0] = logit[1] = Storage<T>::load(logits + sample.first * step);
        if (!soft.mixed()) return;
        logit[1] = Storage<T>::load(logits + sample.second * step);
    }
};

// The sums over a row.
struct Sums { double exponentials, mass, distance; };

// Whether the sum of q*(max - z) is larger than ordinary logits can make it. It is then recomputed in f64: a
// difference of logits may exceed the range of the row's type, and is infinite for a masked logit with a soft label.
static DEVICE bool is_too_far(double distance) { return !(distance <= 1e4); }

// Adds a class with soft part `part` to the three sums, and returns its exponential. FUSED: false for K <= 32, where
// products and sums are grouped in more than one way and a fused multiply-add would not give the same bits in all of
// them.
template <bool FUSED, class Real> DEVICE Real add_class(Real z, Real part, Real max, Real &exponentials, Real &mass, Real &distance) {
    const Real below = z - max, e = Arithmetic<Real>::exp(below);
    exponentials = exponentials + e;
    mass = mass + part;
    // 0 times infinity counts as 0, for masked logits.
    if (part != 0) distance = FUSED ? Arithmetic<Real>::fma(part, -below, distance) : distance - part * below;
    return e;
}

// What the last sweep over a row needs; uniform over its threads.
template <class Real> struct RowResult {
    double loss;         // times the sample weight
    Real inverse;        // 1 / sum of exponentials
    Real q_sum, factor;
    Real to_p, to_part;  // grad = e*to_p - part*to_part
    Real constant;       // the gradient of all classes, if `plain`
    bool plain;
};

template <class Real, bool ANY>
DEVICE RowResult<Real> finish_row(const Pass &pass, Place at, const Sample &sample, const SoftLabel<Real, ANY> &soft, Real max, Sums sums,
                                  const AtTargets<Real> &targets, const Divisor &divisor) {
    RowResult<Real> row;
    const bool silent = divisor.value == 0.0;
    // No NaN, no +inf, and not -inf throughout.
    const bool finite = Arithmetic<Real>::finite(max) && sums.exponentials == sums.exponentials;
    row.plain = !sample.takes_part || !finite || sample.invalid;
    row.loss = 0.0;
    row.constant = 0;
    if (!sample.takes_part) return row;
    if (row.plain) {
        if (!silent) {
            row.constant = Arithmetic<Real>::infinity() * (Real)0; // NaN
            row.loss = (double)row.constant;
        }
        return row;
    }
    const double scale = soft.weight_scale, mass = sums.mass * scale;
    const double log_sum = (double)Arithmetic<Real>::log(sums.exponentials);
    double loss = mass * log_sum + sums.distance * scale;
    loss = loss + (soft.hard[0] * log_sum + hard_term(soft.hard[0], max, targets.logit[0]));
    if (soft.mixed()) loss = loss + (soft.hard[1] * log_sum + hard_term(soft.hard[1], max, targets.logit[1]));
    // Read again: keeping it since the start of the row would cost registers.
    const double weight = ANY && pass.weights.data ? read_real(pass.weights, at) : 1.0;
    row.loss = silent ? 0.0 : weight * loss;
    row.inverse = (Real)reciprocal(sums.exponentials);
    const double q_sum = mass + (soft.hard[0] + soft.hard[1]);
    // Divide the weight, rather than multiply it by an inverse, which would overflow for a divisor that is a sum of
    // tiny weights.
    double factor = silent ? 0.0 : ANY && pass.weights.data ? weight / divisor.value : divisor.inverse;
    if (ANY && pass.grad_loss.data && !silent) factor = factor * read_real(pass.grad_loss, at);
    row.to_p = (Real)(q_sum * (double)row.inverse * factor);
    row.to_part = (Real)((double)soft.scale() * (scale * factor));
    // Without the scale of the class weights, which may exceed the range of a float.
    row.q_sum = (Real)(q_sum / scale);
    row.factor = (Real)(scale * factor);
    return row;
}

// An entry of the gradient without the hard part of q; `part` is its soft part.
template <class Real> DEVICE Real gradient_entry(const RowResult<Real> &row, Real part, Real e) {
    return Arithmetic<Real>::fma(e, row.to_p, -(part * row.to_part));
}

// The entry of target 0 or 1, with the hard part of q: in f64, rounded once.
template <class Real, bool ANY>
DEVICE Real target_entry(const RowResult<Real> &row, const SoftLabel<Real, ANY> &soft, int which, Real max, const AtTargets<Real> &targets) {
    const double p = (double)Arithmetic<Real>::exp(targets.logit[which] - max) * (double)row.inverse;
    const int k = soft.classes[which];
    const double q = soft.wide(__ldg(soft.first_row + k), k) + soft.hard[which] / soft.weight_scale;
    return (Real)(((double)row.q_sum * p - q) * (double)row.factor);
}

// Whether a class with a lower number than `counted` has the maximum. Classes are distributed round-robin over LANES lanes,
// PAIR at a time; `of_lane`: this lane has a class with the maximum. For each lane that has one, usually just one, all
// lanes of its warp search the classes of that lane. Called by all lanes; logits may be overwritten afterwards.
template <int LANES, int PAIR, class Real, class Logit>
DEVICE bool any_before(int lane, int counted, Real max, bool of_lane, Logit logit) {
    bool found = false;
    for (unsigned votes = __ballot_sync(WHOLE_WARP, of_lane); votes; votes &= votes - 1) {
        const int owner = lane / 32 * 32 + __ffs((int)votes) - 1;
        for (int k = PAIR * (owner + lane % 32 * LANES); k < counted; k += 32 * PAIR * LANES) {
            UNROLL
            for (int i = 0; i < PAIR; ++i) found = found || (k + i < counted && logit(k + i) == max);
        }
    }
    __syncwarp(); // before a lane overwrites a logit with an exponential
    return found;
}

// What a class contributes to the sum of q * (max - z), in f64, for logits too far apart for their type.
template <class Real, bool ANY> DEVICE double wide_distance(const SoftLabel<Real, ANY> &soft, int k, Real max, Real z) {
    return hard_term(soft.wide(__ldg(soft.first_row + k), k), max, z);
}
