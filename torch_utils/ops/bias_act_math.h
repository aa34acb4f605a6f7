// One element of bias_act; see bias_act.py for the meaning.
#pragma once

#include <math.h>

#include "bias_act.h"
#include "element_types.h"

enum Activation {
    LINEAR = 1, RELU = 2, LEAKY_RELU = 3, TANH = 4, SIGMOID = 5, ELU = 6, SELU = 7, SOFTPLUS = 8, SWISH = 9
};

// selu(u) = scale * (u > 0 ? u : alpha * (exp(u) - 1)), constants of Klambauer et al. 2017
#define SELU_SCALE 1.0507009873554804934193349852946
#define SELU_ALPHA 1.6732632423543772848170429916717

template <class S> ON_BOTH_SIDES S logistic(S u) { return S(1) / (S(1) + exp(-u)); }

// a(u)
template <class S> ON_BOTH_SIDES S activation(int act, S u, S alpha) {
    switch (act) {
        case RELU:       return u > S(0) ? u : S(0);
        case LEAKY_RELU: return u > S(0) ? u : u * alpha;
        case TANH:       return tanh(u);
        case SIGMOID:    return logistic(u);
        case ELU:        return u > S(0) ? u : expm1(u);
        case SELU:       return S(SELU_SCALE) * (u > S(0) ? u : S(SELU_ALPHA) * expm1(u));
        case SOFTPLUS:   return (u > S(0) ? u : S(0)) + log1p(exp(-fabs(u)));
        case SWISH:      return u * logistic(u);
        default:         return u;
    }
}

// a'(u), from u (swish) or from a = a(u) (the others)
template <class S> ON_BOTH_SIDES S first_derivative(int act, S u, S a, S alpha) {
    switch (act) {
        case RELU:       return a > S(0) ? S(1) : S(0);
        case LEAKY_RELU: return a > S(0) ? S(1) : alpha;
        case TANH:       return S(1) - a * a;
        case SIGMOID:    return a * (S(1) - a);
        case ELU:        return a > S(0) ? S(1) : a + S(1);
        case SELU:       return a > S(0) ? S(SELU_SCALE) : a + S(SELU_SCALE * SELU_ALPHA);
        case SOFTPLUS:   return -expm1(-a);
        case SWISH:      { const S s = logistic(u); return s * (S(1) + u * (S(1) - s)); }
        default:         return S(1);
    }
}

// a''(u), likewise
template <class S> ON_BOTH_SIDES S second_derivative(int act, S u, S a) {
    switch (act) {
        case TANH:     return S(-2) * a * (S(1) - a * a);
        case SIGMOID:  return a * (S(1) - a) * (S(1) - S(2) * a);
        case ELU:      return a > S(0) ? S(0) : a + S(1);
        case SELU:     return a > S(0) ? S(0) : a + S(SELU_SCALE * SELU_ALPHA);
        case SOFTPLUS: return exp(-a) * -expm1(-a);
        case SWISH:    { const S s = logistic(u); return s * (S(1) - s) * (S(2) + u * (S(1) - S(2) * s)); }
        default:       return S(0);
    }
}

template <class Element, class Scalar> ON_BOTH_SIDES Scalar load_or_zero(const void* from, long long index) {
    return from ? Scalar(to_scalar(static_cast<const Element*>(from)[index])) : Scalar(0);
}

// Computes element `index` of the result.
template <class Element, class Index>
ON_BOTH_SIDES void bias_act_element(const BiasActArguments& p, Index index) {
    typedef typename ScalarOf<Element>::type S;
    const S gain = S(p.gain), alpha = S(p.alpha), limit = S(p.clamp);
    const S b = p.b ? load_or_zero<Element, S>(p.b, (index / Index(p.bias_step)) % Index(p.bias_size)) : S(0);
    const S x = load_or_zero<Element, S>(p.x, index);
    S result;
    if (p.grad == 0) {
        result = activation(p.act, x + b, alpha) * gain;
        if (limit >= S(0)) result = result > limit ? limit : result < -limit ? -limit : result;
    } else {
        const S u = load_or_zero<Element, S>(p.xref, index) + b;
        const S y = p.yref ? load_or_zero<Element, S>(p.yref, index) : activation(p.act, u, alpha) * gain;
        const S factor = p.grad == 1 ? first_derivative(p.act, u, y / gain, alpha)
                                     : load_or_zero<Element, S>(p.dy, index) * second_derivative(p.act, u, y / gain);
        // what was clamped is as large as the limit after rounding, which can be less than the limit
        Element stored;
        from_scalar(limit, &stored);
        const S largest = p.yref ? S(to_scalar(stored)) : limit;
        result = limit >= S(0) && !(fabs(y) < largest) ? S(0) : x * gain * factor;
    }
    from_scalar(result, &static_cast<Element*>(p.y)[index]);
}
