// The three ways to compute upfirdn2d, as functions of a thread's number.
#pragma once

#include "element_types.h"
#include "upfirdn2d.h"

// Position in the padded, upsampled image -> first tap that meets a sample there, in [0, up).
ON_BOTH_SIDES int first_tap(int position, int up) {
    const int rest = position % up;
    return rest == 0 ? 0 : rest > 0 ? up - rest : -rest;
}

// Largest whole number <= a / b, for b > 0.
ON_BOTH_SIDES int floor_divide(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

//------------------------------------------------------------------------
// Any factors and filters: one element of the result at a time, `index` counts them in the order of the memory.

template <class Element, class Index>
ON_BOTH_SIDES void upfirdn2d_element(const Upfirdn2dArguments& p, Index index) {
    typedef typename ScalarOf<Element>::type S;
    int c, column, row, n;
    if (p.out_stride_c == 1) {  // channels last
        c = int(index % Index(p.channels)), index /= Index(p.channels);
        column = int(index % Index(p.out_width)), index /= Index(p.out_width);
        row = int(index % Index(p.out_height)), n = int(index / Index(p.out_height));
    } else {
        column = int(index % Index(p.out_width)), index /= Index(p.out_width);
        row = int(index % Index(p.out_height)), index /= Index(p.out_height);
        c = int(index % Index(p.channels)), n = int(index / Index(p.channels));
    }
    const int x0 = column * p.down_x - p.pad_x0, y0 = row * p.down_y - p.pad_y0;
    const int tap_x0 = first_tap(x0, p.up_x), tap_y0 = first_tap(y0, p.up_y);
    const Element* plane = static_cast<const Element*>(p.x) + n * p.in_stride_n + c * p.in_stride_c;
    S sum = S(0);
    int y = (y0 + tap_y0) / p.up_y;
    for (int tap_y = tap_y0; tap_y < p.filter_height; tap_y += p.up_y, ++y) {
        if (y < 0 || y >= p.in_height) continue;
        const float* taps = p.f + (p.flip ? tap_y : p.filter_height - 1 - tap_y) * p.filter_width;
        int x = (x0 + tap_x0) / p.up_x;
        long long at = y * p.in_stride_y + x * p.in_stride_x;
        for (int tap_x = tap_x0; tap_x < p.filter_width; tap_x += p.up_x, ++x, at += p.in_stride_x) {
            if (x < 0 || x >= p.in_width) continue;
            sum += S(taps[p.flip ? tap_x : p.filter_width - 1 - tap_x]) * S(to_scalar(plane[at]));
        }
    }
    from_scalar(sum * S(p.gain), static_cast<Element*>(p.y) + n * p.out_stride_n + c * p.out_stride_c +
                                     row * p.out_stride_y + column * p.out_stride_x);
}

//------------------------------------------------------------------------
// Any factors and filters, channels last: a pack of neighbouring channels at a time, so that a place is worked out once for all of
// them, and a tap is one multiplication for each.

// Whether packs of this type are possible: they begin at multiples of their size everywhere.
template <class Element> bool upfirdn2d_has_packs(const Upfirdn2dArguments& p) {
    const int size = Pack<Element>::SIZE;
    if (p.in_stride_c != 1 || p.out_stride_c != 1 || p.channels % size || !is_aligned(p.x) || !is_aligned(p.y)) return false;
    const long long strides[] = {p.in_stride_n, p.in_stride_y, p.in_stride_x, p.out_stride_n, p.out_stride_y, p.out_stride_x};
    for (const long long stride : strides)
        if (stride % size) return false;
    return true;
}

// `index` counts packs in the order of the memory of the result.
template <class Element, class Index>
ON_BOTH_SIDES void upfirdn2d_pack(const Upfirdn2dArguments& p, Index index) {
    typedef typename ScalarOf<Element>::type S;
    const int size = Pack<Element>::SIZE;
    const Index packs = Index(p.channels / size);
    const int c = int(index % packs) * size;
    index /= packs;
    const int column = int(index % Index(p.out_width));
    index /= Index(p.out_width);
    const int row = int(index % Index(p.out_height)), n = int(index / Index(p.out_height));
    const int x0 = column * p.down_x - p.pad_x0, y0 = row * p.down_y - p.pad_y0;
    const int tap_x0 = first_tap(x0, p.up_x), tap_y0 = first_tap(y0, p.up_y);
    const Element* from = static_cast<const Element*>(p.x) + n * p.in_stride_n + c;
    S sums[Pack<Element>::SIZE];
    for (int i = 0; i < size; ++i) sums[i] = S(0);
    int y = (y0 + tap_y0) / p.up_y;
    for (int tap_y = tap_y0; tap_y < p.filter_height; tap_y += p.up_y, ++y) {
        if (y < 0 || y >= p.in_height) continue;
        const float* taps = p.f + (p.flip ? tap_y : p.filter_height - 1 - tap_y) * p.filter_width;
        int x = (x0 + tap_x0) / p.up_x;
        long long at = y * p.in_stride_y + x * p.in_stride_x;
        for (int tap_x = tap_x0; tap_x < p.filter_width; tap_x += p.up_x, ++x, at += p.in_stride_x) {
            if (x < 0 || x >= p.in_width) continue;
            const S tap = S(taps[p.flip ? tap_x : p.filter_width - 1 - tap_x]);
            const Pack<Element> samples = *reinterpret_cast<const Pack<Element>*>(from + at);
#if defined(__CUDACC__)
#pragma unroll
#endif
            for (int i = 0; i < size; ++i) sums[i] += tap * S(to_scalar(samples.values[i]));
        }
    }
    Pack<Element> result;
    for (int i = 0; i < size; ++i) from_scalar(sums[i] * S(p.gain), &result.values[i]);
    *reinterpret_cast<Pack<Element>*>(static_cast<Element*>(p.y) + n * p.out_stride_n + row * p.out_stride_y +
                                      column * p.out_stride_x + c) = result;
}

//------------------------------------------------------------------------
// Equal factors and a square filter, known when compiled: a tile of the result from a tile of the input that all threads
// of a block share.

template <class Element, int UP, int DOWN, int TAPS>
struct Upfirdn2dTile {
    typedef typename ScalarOf<Element>::type S;
    enum {
        WIDTH = 32, HEIGHT = 32,                                   // of the result
        IN_WIDTH = ((WIDTH - 1) * DOWN + TAPS + UP - 1) / UP,      // of the samples that it is made of
        IN_HEIGHT = ((HEIGHT - 1) * DOWN + TAPS + UP - 1) / UP
    };
    S samples[IN_HEIGHT][IN_WIDTH + 1];
    S taps[TAPS][TAPS];

    // First sample that a tap at `position` or behind it can meet.
    static ON_BOTH_SIDES int first_sample(int position) { return floor_divide(position + UP - 1, UP); }

    ON_BOTH_SIDES void load(const Upfirdn2dArguments& p, int column, int row, int c, int n, int thread, int threads) {
        const int x0 = first_sample(column * DOWN - p.pad_x0), y0 = first_sample(row * DOWN - p.pad_y0);
        const Element* plane = static_cast<const Element*>(p.x) + n * p.in_stride_n + c * p.in_stride_c;
        for (int index = thread; index < int(IN_WIDTH * IN_HEIGHT); index += threads) {
            const int x = index % IN_WIDTH, y = index / IN_WIDTH;
            const bool inside = x0 + x >= 0 && x0 + x < p.in_width && y0 + y >= 0 && y0 + y < p.in_height;
            samples[y][x] = inside ? S(to_scalar(plane[(y0 + y) * p.in_stride_y + (x0 + x) * p.in_stride_x])) : S(0);
        }
        for (int index = thread; index < TAPS * TAPS; index += threads) {
            const int from = p.flip ? index : TAPS * TAPS - 1 - index;
            taps[index / TAPS][index % TAPS] = S(p.f[from]) * S(p.gain);
        }
    }

    ON_BOTH_SIDES void compute(const Upfirdn2dArguments& p, int column, int row, int c, int n, int thread, int threads) {
        const int left = first_sample(column * DOWN - p.pad_x0), top = first_sample(row * DOWN - p.pad_y0);
        Element* plane = static_cast<Element*>(p.y) + n * p.out_stride_n + c * p.out_stride_c;
        for (int index = thread; index < int(WIDTH * HEIGHT); index += threads) {
            const int x = column + index % WIDTH, y = row + index / WIDTH;
            if (x >= p.out_width || y >= p.out_height) continue;
            const int x0 = x * DOWN - p.pad_x0, y0 = y * DOWN - p.pad_y0;
            const int tap_x0 = first_tap(x0, UP), tap_y0 = first_tap(y0, UP);
            const int sample_x0 = first_sample(x0) - left, sample_y0 = first_sample(y0) - top;
            S sum = S(0);
#if defined(__CUDACC__)
#pragma unroll
#endif
            for (int i = 0; i < (TAPS + UP - 1) / UP; ++i) {
#if defined(__CUDACC__)
#pragma unroll
#endif
                for (int j = 0; j < (TAPS + UP - 1) / UP; ++j) {
                    const int tap_x = tap_x0 + j * UP, tap_y = tap_y0 + i * UP;
                    if (TAPS % UP == 0 || (tap_x < TAPS && tap_y < TAPS))
                        sum += taps[tap_y][tap_x] * samples[sample_y0 + i][sample_x0 + j];
                }
            }
            from_scalar(sum, plane + y * p.out_stride_y + x * p.out_stride_x);
        }
    }
};
