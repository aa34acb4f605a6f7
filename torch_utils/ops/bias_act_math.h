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

// What every element goes through, with the numbers that all have in common.
template <class Element> struct BiasAct {
    typedef typename ScalarOf<Element>::type S;
    S gain, alpha, limit, largest;
    int grad, act;
    bool from_result;  // whether the forward pass's result is there

    ON_BOTH_SIDES explicit BiasAct(const BiasActArguments& p)
        : gain(S(p.gain)), alpha(S(p.alpha)), limit(S(p.clamp)), largest(limit), grad(p.grad), act(p.act), from_result(p.yref) {
        // what was clamped is as large as the limit after rounding, which can be less than the limit
        Element stored;
        from_scalar(limit, &stored);
        if (from_result) largest = S(to_scalar(stored));
    }

    // The result for one element of each tensor; those that are not there are 0.
    ON_BOTH_SIDES S operator()(S x, S b, S xref, S yref, S dy) const {
        if (grad == 0) {
            const S y = activation(act, x + b, alpha) * gain;
            return limit < S(0) ? y : y > limit ? limit : y < -limit ? -limit : y;
        }
        const S u = xref + b, y = from_result ? yref : activation(act, u, alpha) * gain;
        const S factor = grad == 1 ? first_derivative(act, u, y / gain, alpha) : dy * second_derivative(act, u, y / gain);
        return limit >= S(0) && !(fabs(y) < largest) ? S(0) : x * gain * factor;
    }
};

template <class Element> ON_BOTH_SIDES typename ScalarOf<Element>::type load_or_zero(const void* from, long long index) {
    typedef typename ScalarOf<Element>::type S;
    return from ? S(to_scalar(static_cast<const Element*>(from)[index])) : S(0);
}

// Computes element `index` of the result.
template <class Element, class Index>
ON_BOTH_SIDES void bias_act_element(const BiasActArguments& p, const BiasAct<Element>& f, Index index) {
    const typename ScalarOf<Element>::type b =
        p.b ? load_or_zero<Element>(p.b, (index / Index(p.bias_step)) % Index(p.bias_size)) : 0;
    from_scalar(f(load_or_zero<Element>(p.x, index), b, load_or_zero<Element>(p.xref, index), load_or_zero<Element>(p.yref, index),
                  load_or_zero<Element>(p.dy, index)), &static_cast<Element*>(p.y)[index]);
}

//------------------------------------------------------------------------
// Packs of neighbours: one instruction for each tensor, and one division for all of them.

// Whether packs of this type are possible: all tensors begin at one, and neighbours have one bias, or biases that are neighbours.
template <class Element> bool bias_act_has_packs(const BiasActArguments& p) {
    const long long size = Pack<Element>::SIZE;
    const void* tensors[] = {p.x, p.xref, p.yref, p.dy, p.y};
    for (const void* tensor : tensors)
        if (!is_aligned(tensor)) return false;
    return !p.b || p.bias_step % size == 0 || (p.bias_step == 1 && p.bias_size % size == 0 && is_aligned(p.b));
}

template <class Element> ON_BOTH_SIDES Pack<Element> load_pack(const void* from, long long index) {
    if (from) return *reinterpret_cast<const Pack<Element>*>(static_cast<const Element*>(from) + index);
    return Pack<Element>();  // zeros
}

// Computes the elements from `index` on, which begins a pack; the last ones may be fewer.
template <class Element, class Index>
ON_BOTH_SIDES void bias_act_pack(const BiasActArguments& p, const BiasAct<Element>& f, Index index) {
    typedef typename ScalarOf<Element>::type S;
    const int size = Pack<Element>::SIZE;
    if (index + Index(size) > Index(p.count)) {
        for (; index < Index(p.count); ++index) bias_act_element<Element, Index>(p, f, index);
        return;
    }
    const bool same = !p.b || p.bias_step != 1 || p.bias_size == 1;  // one bias for all of them
    const Index first = p.b ? (index / Index(p.bias_step)) % Index(p.bias_size) : Index(0);
    const S b = same ? load_or_zero<Element>(p.b, first) : S(0);
    const Pack<Element> x = load_pack<Element>(p.x, index), xref = load_pack<Element>(p.xref, index),
                        yref = load_pack<Element>(p.yref, index), dy = load_pack<Element>(p.dy, index),
                        biases = load_pack<Element>(same ? nullptr : p.b, first);
    Pack<Element> y;
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int i = 0; i < size; ++i) {
        from_scalar(f(S(to_scalar(x.values[i])), same ? b : S(to_scalar(biases.values[i])), S(to_scalar(xref.values[i])),
                      S(to_scalar(yref.values[i])), S(to_scalar(dy.values[i]))), &y.values[i]);
    }
    *reinterpret_cast<Pack<Element>*>(static_cast<Element*>(p.y) + index) = y;
}
