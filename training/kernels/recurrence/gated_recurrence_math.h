// The passes of gated_recurrence as functions of a block's and a thread's number.
//
//     r = sigmoid(p_r)    z = sigmoid(p_z)    [p_r, p_z] = W_i x + b_i + W_h h + b_h
//     n = tanh(q)         q = a + r m         a = W_i x + b_i,   m = W_h h + b_h
//     h' = n + z (h - n)
//
// A block takes a few samples through all steps. Its cells work at the same time, each one step behind the cell below it: in
// wave w cell c is at step w - c. Weights stay in the registers of the threads that multiply by them, memories in shared
// memory. Every wave has two stages, products and units, with a barrier behind each.
#pragma once

#include <math.h>

#include "gated_recurrence.h"

#if defined(__CUDACC__)
#define ON_BOTH_SIDES __host__ __device__ __forceinline__
#define UNROLLED _Pragma("unroll")
#else  // plain C++: the tests run the same functions without a GPU
#define ON_BOTH_SIDES inline
#define UNROLLED
#endif

const int RECURRENCE_SIZE = 32, RECURRENCE_MOST_CELLS = 6;

// Four numbers that are read at once.
template <class T> struct alignas(4 * sizeof(T)) Quad { T v[4]; };

template <class T> ON_BOTH_SIDES T sigmoid_of(T x) { return T(1) / (T(1) + exp(-x)); }

template <class T> ON_BOTH_SIDES T value_at(const void* values, size_t index) { return static_cast<const T*>(values)[index]; }
template <class T> ON_BOTH_SIDES void put_at(void* values, size_t index, T value) { static_cast<T*>(values)[index] = value; }

// What both directions know of their place.
struct RecurrencePlace {
    static const int D = RECURRENCE_SIZE;

    // Rows of [K or K + 1, C, N, ..] and of [C, K, N, ..].
    static ON_BOTH_SIDES size_t row(const RecurrenceArguments& p, int k, int c, int n) {
        return (size_t(k) * p.cells + c) * p.count + n;
    }
    static ON_BOTH_SIDES size_t cell_row(const RecurrenceArguments& p, int c, int k, int n) {
        return (size_t(c) * p.steps + k) * p.count + n;
    }
};

//------------------------------------------------------------------------
// Forward in time: values, or their tangents along a direction.

template <class T, int SAMPLES, bool TANGENT>
struct RecurrenceForward : RecurrencePlace {
    Quad<T> slots[RECURRENCE_MOST_CELLS + 1][SAMPLES][D / 4];  // slot c is the input of cell c, slot c + 1 its memory
    T arguments[RECURRENCE_MOST_CELLS][SAMPLES][4 * D];        // p_r, p_z, a, m; of values r, z, a, m

    // A row of the weights belongs to a thread, for products; and one unit of one sample, for units.
    struct Thread {
        T ih[D], hh[D], bias_i, bias_h, noise, r, z, n, m, before;
    };
    static ON_BOTH_SIDES int threads(const RecurrenceArguments& p) { return p.cells * 3 * D; }

    ON_BOTH_SIDES T& slot(int c, int s, int d) { return slots[c][s][d / 4].v[d % 4]; }

    ON_BOTH_SIDES void begin(const RecurrenceArguments& p, int block, int thread, Thread& own) {
        UNROLLED
        for (int i = 0; i < D; ++i) {
            own.ih[i] = value_at<T>(p.weight_ih, size_t(thread) * D + i);
            own.hh[i] = value_at<T>(p.weight_hh, size_t(thread) * D + i);
        }
        own.bias_i = TANGENT ? T(0) : value_at<T>(p.bias_ih, thread);
        own.bias_h = TANGENT ? T(0) : value_at<T>(p.bias_hh, thread);
        for (int index = thread; index < p.cells * SAMPLES * D; index += threads(p)) {
            const int d = index % D, s = index / D % SAMPLES, c = index / D / SAMPLES, n = block * SAMPLES + s;
            const T h = n < p.count ? value_at<T>(p.first, (size_t(c) * p.count + n) * D + d) : T(0);
            slot(c + 1, s, d) = h;
            if (n >= p.count) continue;
            put_at<T>(TANGENT ? p.t_memories : p.memories, row(p, 0, c, n) * D + d, h);
            if (c == p.cells - 1) put_at<T>(p.l, size_t(n) * (p.steps + 1) * D + d, h);
        }
        own.noise = T(0);
        fetch_noise(p, block, 0, thread, own);
        if (thread < SAMPLES * D) slot(0, thread / D, thread % D) = own.noise;
    }

    // Load what units need from memory, while products keep the processor busy.
    ON_BOTH_SIDES void fetch_noise(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        const int n = block * SAMPLES + thread / D;
        if (thread < SAMPLES * D && n < p.count && wave < p.steps)
            own.noise = value_at<T>(p.noise, (size_t(n) * p.steps + wave) * D + thread % D);
    }

    ON_BOTH_SIDES void fetch_saved(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        const int d = thread % D, s = thread / D % SAMPLES, c = thread / D / SAMPLES, n = block * SAMPLES + s, k = wave - c;
        if (n >= p.count || c >= p.cells || k < 0 || k >= p.steps) return;
        const size_t at = row(p, k, c, n);
        own.r = value_at<T>(p.saved, at * 4 * D + d), own.z = value_at<T>(p.saved, at * 4 * D + D + d);
        own.n = value_at<T>(p.saved, at * 4 * D + 2 * D + d), own.m = value_at<T>(p.saved, at * 4 * D + 3 * D + d);
        own.before = value_at<T>(p.memories, at * D + d);
    }

    ON_BOTH_SIDES void products(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        fetch_noise(p, block, wave + 1, thread, own);
        if (TANGENT) fetch_saved(p, block, wave, thread, own);
        const int c = thread / (3 * D), j = thread % (3 * D), k = wave - c;
        if (k >= 0 && k < p.steps) {
            UNROLLED
            for (int s = 0; s < SAMPLES; ++s) {
                T from_x[2] = {own.bias_i, T(0)}, from_h[2] = {own.bias_h, T(0)};
                UNROLLED
                for (int i = 0; i < D / 4; ++i) {
                    const Quad<T> x = slots[c][s][i], h = slots[c + 1][s][i];
                    UNROLLED
                    for (int e = 0; e < 4; ++e) {
                        from_x[i % 2] += own.ih[4 * i + e] * x.v[e];
                        from_h[i % 2] += own.hh[4 * i + e] * h.v[e];
                    }
                }
                const T a = from_x[0] + from_x[1], m = from_h[0] + from_h[1];
                if (j < 2 * D) arguments[c][s][j] = TANGENT ? a + m : sigmoid_of(a + m);
                else arguments[c][s][j] = a, arguments[c][s][j + D] = m;
            }
        }
    }

    ON_BOTH_SIDES void units(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        const int d = thread % D, s = thread / D % SAMPLES, c = thread / D / SAMPLES, n = block * SAMPLES + s, k = wave - c;
        if (c < p.cells && k >= 0 && k < p.steps && n < p.count) {
            const T* argument = arguments[c][s];
            const T first = argument[d], second = argument[D + d], a = argument[2 * D + d], m = argument[3 * D + d];
            const T h = slot(c + 1, s, d);
            const size_t at = row(p, k, c, n), next = row(p, k + 1, c, n);
            T now;
            if (TANGENT) {
                const T t_r = own.r * (T(1) - own.r) * first, t_z = own.z * (T(1) - own.z) * second;
                const T t_q = a + t_r * own.m + own.r * m, t_n = (T(1) - own.n * own.n) * t_q;
                now = t_n + t_z * (own.before - own.n) + own.z * (h - t_n);
                put_at<T>(p.tangents, at * 4 * D + d, first), put_at<T>(p.tangents, at * 4 * D + D + d, second);
                put_at<T>(p.tangents, at * 4 * D + 2 * D + d, t_q), put_at<T>(p.tangents, at * 4 * D + 3 * D + d, m);
                put_at<T>(p.t_memories, next * D + d, now);
            } else {
                const T unit = tanh(a + first * m);
                now = unit + second * (h - unit);
                if (p.saved) {
                    put_at<T>(p.saved, at * 4 * D + d, first), put_at<T>(p.saved, at * 4 * D + D + d, second);
                    put_at<T>(p.saved, at * 4 * D + 2 * D + d, unit), put_at<T>(p.saved, at * 4 * D + 3 * D + d, m);
                }
                put_at<T>(p.memories, next * D + d, now);
            }
            if (c == p.cells - 1) put_at<T>(p.l, (size_t(n) * (p.steps + 1) + k + 1) * D + d, now);
            slot(c + 1, s, d) = now;
        }
        if (thread < SAMPLES * D) slot(0, s, d) = own.noise;
    }


    ON_BOTH_SIDES void end(const RecurrenceArguments&, int, int) {}
};

//------------------------------------------------------------------------
// Backward in time. First derivatives: alpha, from the gradients of memories to those of the gates' arguments. Second derivatives,
// of the sum of <v, first derivatives>: the same alpha is what reaches the tangents, and beta is what reaches the values.

template <class T, int SAMPLES, bool SECOND>
struct RecurrenceBackward : RecurrencePlace {
    static const int KINDS = SECOND ? 2 : 1;                             // alpha, beta
    Quad<T> arguments[KINDS][RECURRENCE_MOST_CELLS][SAMPLES][D];          // gradients of p_r, p_z, a = q, m
    T from_above[KINDS][RECURRENCE_MOST_CELLS][SAMPLES][D];               // what reaches a memory as the input of the next cell
    T from_later[KINDS][RECURRENCE_MOST_CELLS][SAMPLES][D];               // and as the memory of the next step

    // A column of the weights for products, of W_i for the second half of the threads; one unit of one sample for units.
    struct Thread {
        T column[3 * D], r, z, n, m, before, outside, t_r, t_z, t_q, t_m, t_before;
    };
    static ON_BOTH_SIDES int threads(const RecurrenceArguments& p) { return p.cells * 2 * D; }

    ON_BOTH_SIDES void begin(const RecurrenceArguments& p, int block, int thread, Thread& own) {
        const int d = thread % D, c = thread / D % p.cells;
        const void* weights = thread < p.cells * D ? p.weight_hh : p.weight_ih;
        UNROLLED
        for (int j = 0; j < 3 * D; ++j) own.column[j] = value_at<T>(weights, (size_t(c) * 3 * D + j) * D + d);
        for (int index = thread; index < KINDS * RECURRENCE_MOST_CELLS * SAMPLES * D; index += threads(p))
            (&from_above[0][0][0][0])[index] = (&from_later[0][0][0][0])[index] = T(0);
        fetch(p, block, 0, thread, own);
    }

    // Gradient from outside to the memory of cell c before step k.
    static ON_BOTH_SIDES T from_outside(const RecurrenceArguments& p, int k, int c, int n, int d) {
        T sum = p.g_memories ? value_at<T>(p.g_memories, row(p, k, c, n) * D + d) : T(0);
        if (p.g_l && c == p.cells - 1) sum += value_at<T>(p.g_l, (size_t(n) * (p.steps + 1) + k) * D + d);
        return sum;
    }

    static ON_BOTH_SIDES int step_of(const RecurrenceArguments& p, int wave, int c) { return p.steps + p.cells - 2 - wave - c; }

    ON_BOTH_SIDES void fetch(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        const int d = thread % D, s = thread / D % SAMPLES, c = thread / D / SAMPLES, n = block * SAMPLES + s;
        const int k = step_of(p, wave, c);
        if (c >= p.cells || n >= p.count || k < 0 || k >= p.steps) return;
        const size_t at = row(p, k, c, n);
        own.r = value_at<T>(p.saved, at * 4 * D + d), own.z = value_at<T>(p.saved, at * 4 * D + D + d);
        own.n = value_at<T>(p.saved, at * 4 * D + 2 * D + d), own.m = value_at<T>(p.saved, at * 4 * D + 3 * D + d);
        own.before = value_at<T>(p.memories, at * D + d);
        own.outside = from_outside(p, k + 1, c, n, d);
        if (SECOND) {
            own.t_r = value_at<T>(p.tangents, at * 4 * D + d), own.t_z = value_at<T>(p.tangents, at * 4 * D + D + d);
            own.t_q = value_at<T>(p.tangents, at * 4 * D + 2 * D + d);
            own.t_m = value_at<T>(p.tangents, at * 4 * D + 3 * D + d);
            own.t_before = value_at<T>(p.t_memories, at * D + d);
        }
    }

    ON_BOTH_SIDES void put_argument(void* to, int kind, size_t at, int c, int s, int d, T p_r, T p_z, T q, T m) {
        const T values[4] = {p_r, p_z, q, m};
        UNROLLED
        for (int gate = 0; gate < 4; ++gate) {
            arguments[kind][c][s][(gate * D + d) / 4].v[d % 4] = values[gate];
            put_at<T>(to, at * 4 * D + gate * D + d, values[gate]);
        }
    }

    ON_BOTH_SIDES void units(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        const int d = thread % D, s = thread / D % SAMPLES, c = thread / D / SAMPLES, n = block * SAMPLES + s;
        const int k = step_of(p, wave, c);
        if (c >= p.cells || n >= p.count || k < 0 || k >= p.steps) return;
        const size_t at = cell_row(p, c, k, n);
        const T r = own.r, z = own.z, unit = own.n, m = own.m, away = own.before - unit;
        const T slope_r = r * (T(1) - r), slope_z = z * (T(1) - z), slope_q = T(1) - unit * unit;
        const T alpha = from_later[0][c][s][d] + from_above[0][c][s][d] + own.outside;
        const T of_t_n = (T(1) - z) * alpha, of_t_q = slope_q * of_t_n, of_t_z = away * alpha, of_t_r = m * of_t_q;
        put_argument(p.of_tangents, 0, at, c, s, d, slope_r * of_t_r, slope_z * of_t_z, of_t_q, r * of_t_q);
        from_later[0][c][s][d] = z * alpha;
        if (SECOND) {
            const int last = KINDS - 1;
            const T beta = from_later[last][c][s][d] + from_above[last][c][s][d];
            const T t_r = slope_r * own.t_r, t_z = slope_z * own.t_z;
            const T of_n = (T(1) - z) * beta - t_z * alpha - T(2) * unit * own.t_q * of_t_n, of_q = slope_q * of_n;
            const T of_z = (own.t_before - slope_q * own.t_q) * alpha + away * beta + (T(1) - T(2) * z) * own.t_z * of_t_z;
            const T of_r = own.t_m * of_t_q + m * of_q + (T(1) - T(2) * r) * own.t_r * of_t_r;
            put_argument(p.of_values, last, at, c, s, d, slope_r * of_r, slope_z * of_z, of_q, t_r * of_t_q + r * of_q);
            from_later[last][c][s][d] = t_z * alpha + z * beta;
        }
    }

    ON_BOTH_SIDES void products(const RecurrenceArguments& p, int block, int wave, int thread, Thread& own) {
        fetch(p, block, wave + 1, thread, own);
        const bool to_memory = thread < p.cells * D;
        const int d = thread % D, c = thread / D % p.cells, k = step_of(p, wave, c);
        if (k < 0 || k >= p.steps) return;
        UNROLLED
        for (int kind = 0; kind < KINDS; ++kind) {
            UNROLLED
            for (int s = 0; s < SAMPLES; ++s) {
                const Quad<T>* argument = arguments[kind][c][s];
                const int last = to_memory ? D / 4 : 0;  // W_hn meets m, W_in meets q
                T sum[2] = {T(0), T(0)};
                UNROLLED
                for (int j = 0; j < 3 * D / 4; ++j) {
                    const Quad<T> g = argument[j < 2 * D / 4 ? j : j + last];
                    UNROLLED
                    for (int e = 0; e < 4; ++e) sum[j % 2] += own.column[4 * j + e] * g.v[e];
                }
                const T total = sum[0] + sum[1];
                const int n = block * SAMPLES + s;
                if (to_memory) from_later[kind][c][s][d] += total;
                else if (c > 0) from_above[kind][c - 1][s][d] = total;
                else if (kind == KINDS - 1 && n < p.count) put_at<T>(p.d_noise, (size_t(n) * p.steps + k) * D + d, total);
            }
        }
    }

    ON_BOTH_SIDES void end(const RecurrenceArguments& p, int block, int thread) {
        const int d = thread % D, s = thread / D % SAMPLES, c = thread / D / SAMPLES, n = block * SAMPLES + s;
        if (c >= p.cells || n >= p.count) return;
        T sum = from_later[KINDS - 1][c][s][d];
        if (!SECOND) sum += from_outside(p, 0, c, n, d);
        put_at<T>(p.d_first, (size_t(c) * p.count + n) * D + d, sum);
    }
};
