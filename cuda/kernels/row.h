// What a pass makes of one row, once its maximum and its sums are known: the same for every way in which rows are shared out to threads.
#pragma once
#include "statistics.h"

// q of a row: the soft part as a product per class, the hard part as at most two classes.
template <class Real> struct SoftLabel {
    const float *first_row, *second_row;
    Real first_scale, second_scale;
    bool mixed;
    const void *weights;
    double weight_scale;
    int classes[2];
    double hard[2];

    DEVICE SoftLabel(const Pass &pass, const Sample &sample) {
        // With one target twice lam has no effect on q.
        double lam = sample.first == sample.second ? 1.0 : sample.lam;
        first_row = pass.state.soft_labels + (i64)sample.first * pass.state.soft_labels_stride;
        second_row = pass.state.soft_labels + (i64)sample.second * pass.state.soft_labels_stride;
        first_scale = (Real)(lam * (1.0 - pass.alpha));
        second_scale = (Real)((1.0 - lam) * (1.0 - pass.alpha));
        mixed = sample.first != sample.second;
        weights = sizeof(Real) == 8 ? (const void *)pass.scaled_weights : (const void *)pass.scaled_weights32;
        weight_scale = weights ? pass.weight_scale : 1.0;
        classes[0] = sample.first;
        classes[1] = sample.second;
        hard[0] = pass.alpha * (pass.class_weights ? pass.class_weights[sample.first] : 1.0);
        hard[1] = pass.alpha * (pass.class_weights ? pass.class_weights[sample.second] : 1.0);
        if (mixed) {
            hard[0] *= lam;
            hard[1] *= 1.0 - lam;
        } else {
            hard[1] = 0.0;
        }
    }
    DEVICE Real weight(int k) const { return weights ? reinterpret_cast<const Real *>(weights)[k] : (Real)1; }
    // The soft part of q / weight_scale.
    DEVICE Real operator()(int k) const {
        Real q = (Real)__ldg(first_row + k) * first_scale;
        if (mixed) q = Arithmetic<Real>::fma((Real)__ldg(second_row + k), second_scale, q);
        return weights ? q * weight(k) : q;
    }
    // The same for COUNT classes, `step` apart, of those below `last`, and 0 for the others. `first` has the entries of the first row, 0 behind `last`.
    template <int COUNT> DEVICE void some(const float *first, int k, int step, int last, Real *q) const {
        UNROLL
        for (int j = 0; j < COUNT; ++j) q[j] = (Real)first[j] * first_scale;
        if (mixed) {
            UNROLL
            for (int j = 0; j < COUNT; ++j)
                if (k + j * step < last) q[j] = Arithmetic<Real>::fma((Real)__ldg(second_row + k + j * step), second_scale, q[j]);
        }
        if (weights) {
            UNROLL
            for (int j = 0; j < COUNT; ++j)
                if (k + j * step < last) q[j] = q[j] * weight(k + j * step);
        }
    }
    // The soft part of q from the same numbers, exactly enough for a target's entry.
    DEVICE double wide(int k) const {
        double q = (double)first_row[k] * (double)first_scale;
        if (mixed) q = q + (double)second_row[k] * (double)second_scale;
        return weights ? q * ((double)weight(k) * weight_scale) : q;
    }
};

// The logits of a sample's targets; 0 where it takes no part.
template <class Real> struct TargetLogits {
    Real first, second;

    template <class T> DEVICE TargetLogits(const Sample &sample, bool mixed, const T *logits, i64 step) : first(0), second(0) {
        if (!sample.takes_part) return;
        first = Storage<T>::load(logits + sample.first * step);
        second = mixed ? Storage<T>::load(logits + sample.second * step) : first;
    }
};

// The sums over a row.
struct Sums { double exponentials, mass, distance; };
static DEVICE Sums operator+(Sums a, Sums b) { return Sums{a.exponentials + b.exponentials, a.mass + b.mass, a.distance + b.distance}; }

// What remains to be done for a row, the same numbers in all of its threads.
template <class Real> struct RowResult {
    bool finite;         // neither NaN, nor +inf, nor nothing but -inf
    double loss;         // times the sample weight
    Real inverse;        // 1 / sum of exponentials
    double q_sum, factor;
    Real to_p, to_q;     // grad = e*to_p - q*to_q
    Real constant;       // the gradient everywhere, where `plain`
    bool plain;
};

template <class Real>
DEVICE RowResult<Real> finish_row(const Pass &pass, Place at, const Sample &sample, const SoftLabel<Real> &soft, Real max, Sums sums,
                                  const TargetLogits<Real> &at_targets, double divisor) {
    RowResult<Real> row;
    bool silent = divisor == 0.0;
    row.finite = Arithmetic<Real>::finite(max) && sums.exponentials == sums.exponentials;
    row.plain = !sample.takes_part || !row.finite || sample.invalid;
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
    double scale = soft.weight_scale;
    double mass = sums.mass * scale;
    double log_sum = natural_log(sums.exponentials);
    double loss = mass * log_sum + sums.distance * scale;
    loss = loss + (soft.hard[0] * log_sum + hard_term(soft.hard[0], (double)max, (double)at_targets.first));
    if (soft.mixed) loss = loss + (soft.hard[1] * log_sum + hard_term(soft.hard[1], (double)max, (double)at_targets.second));
    if (!silent) row.loss = sample.weight * loss;
    row.inverse = (Real)(1.0 / sums.exponentials);
    row.q_sum = mass + (soft.hard[0] + soft.hard[1]);
    row.factor = 0.0;
    if (!silent) {
        // In this order a divisor of tiny weights is met by a tiny weight.
        row.factor = sample.weight / divisor * (pass.grad_loss.data ? read_real(pass.grad_loss, at) : 1.0);
    }
    row.to_p = (Real)(row.q_sum * (double)row.inverse * row.factor);
    row.to_q = (Real)(scale * row.factor);
    return row;
}

// One entry of the gradient, as if it were no target's; q is its soft part.
template <class Real> DEVICE Real gradient_entry(const RowResult<Real> &row, Real q, Real e) {
    return Arithmetic<Real>::fma(e, row.to_p, -(q * row.to_q));
}

// The entry of target 0 or 1 again, with its hard label: in f64, rounded once.
template <class Real> DEVICE Real target_entry(const RowResult<Real> &row, const SoftLabel<Real> &soft, int which, Real e) {
    double p = (double)e * (double)row.inverse;
    return (Real)((row.q_sum * p - soft.wide(soft.classes[which]) - soft.hard[which]) * row.factor);
}

// A row's part in the sum of q * (max - z) in f64, for logits too far apart for their type.
template <class Real> DEVICE double wide_distance(const SoftLabel<Real> &soft, int k, Real max, Real z) {
    return hard_term((double)soft(k), (double)max, (double)z);
}
