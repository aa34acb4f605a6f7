#pragma once

#include "../lanes.h"

namespace {

//----------------------------------------------------------------------------
// The recurrence: GRU cells on top of each other, all of one size D (a multiple of the vectors' width), over all time steps.
//
//     r = sigmoid(p_r), z = sigmoid(p_z), [p_r, p_z] = W_i x + b_i + W_h h + b_h;   n = tanh(q), q = a + r m, a = W_i x + b_i, m = W_h h + b_h
//     h' = (1 - z) n + z h
//
// memories [steps + 1, cells, N, D]; saved [steps, cells, N, 4 D] holds r, z, n, m; noise [N, steps, D]; l [N, steps + 1, D].

constexpr int SAMPLES = 32;  // that go through all steps together

template <class T> struct Recurrence {
    int count, steps, cells, size;  // N, .., D
    const T *noise, *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // [cells, 3 D, D] and [cells, 3 D] each
    T *memories, *saved;

    const T* ih(int c) const { return weight_ih + (size_t)c * 3 * size * size; }
    const T* hh(int c) const { return weight_hh + (size_t)c * 3 * size * size; }
    size_t row(int k, int c, int n) const { return ((size_t)k * cells + c) * count + n; }
    size_t input_row(int k, int n) const { return (size_t)n * steps + k; }

    // Rows of the inputs of cell c at step k for samples first .., out of noise and memories or their tangents.
    void inputs(int k, int c, int first, int rows, const T* of_noise, const T* of_memories, const T** x, const T** h) const {
        for (int i = 0; i < rows; i++) {
            x[i] = c == 0 ? of_noise + input_row(k, first + i) * size : of_memories + row(k + 1, c - 1, first + i) * size;
            h[i] = of_memories + row(k, c, first + i) * size;
        }
    }

    // [D, 3 D] for each cell
    static std::vector<T> transposed(const T* weight, int cells, int size) {
        std::vector<T> result((size_t)cells * 3 * size * size);
        for (int c = 0; c < cells; c++)
            for (int o = 0; o < 3 * size; o++)
                for (int i = 0; i < size; i++)
                    result[((size_t)c * size + i) * 3 * size + o] = weight[((size_t)c * 3 * size + o) * size + i];
        return result;
    }

    // to[row][0 .. 4 D] = p_r, p_z, a, m of these rows
    void arguments(int rows, const T* const* x, const T* const* h, const T* ih_t, const T* hh_t, const T* bias, T* const* to) const {
        Segment<T> both[2] = {{x, 0, ih_t, 3 * size, size}, {h, 0, hh_t, 3 * size, size}};
        product<T, 2>(rows, 2 * size, both, StoreWithBias<T>{to, 0, bias});
        Segment<T> one = {x, 0, ih_t + 2 * size, 3 * size, size};
        product<T, 1>(rows, size, &one, StoreWithBias<T>{to, 2 * size, bias + 2 * size});
        one = {h, 0, hh_t + 2 * size, 3 * size, size};
        product<T, 1>(rows, size, &one, StoreWithBias<T>{to, 3 * size, bias + 3 * size});
    }

    void forward(T* l) {
        VECTORS(T);
        const std::vector<T> ih_t = transposed(weight_ih, cells, size), hh_t = transposed(weight_hh, cells, size);
        std::vector<T> bias((size_t)cells * 4 * size), scratch(saved ? 0 : (size_t)SAMPLES * 4 * size);
        for (int c = 0; c < cells; c++)
            for (int j = 0; j < size; j++) {
                const T *in = bias_ih + (size_t)c * 3 * size, *hidden = bias_hh + (size_t)c * 3 * size;
                T* to = &bias[(size_t)c * 4 * size];
                to[j] = in[j] + hidden[j];
                to[size + j] = in[size + j] + hidden[size + j];
                to[2 * size + j] = in[2 * size + j];
                to[3 * size + j] = hidden[2 * size + j];
            }
        const T *x[SAMPLES], *h[SAMPLES];
        T* gates[SAMPLES];
        for (int first = 0; first < count; first += SAMPLES) {
            const int rows = count - first < SAMPLES ? count - first : SAMPLES;
            for (int k = 0; k < steps; k++)
                for (int c = 0; c < cells; c++) {
                    inputs(k, c, first, rows, noise, memories, x, h);
                    for (int i = 0; i < rows; i++)
                        gates[i] = saved ? saved + row(k, c, first + i) * 4 * size : &scratch[(size_t)i * 4 * size];
                    const size_t matrix = (size_t)c * 3 * size * size;
                    arguments(rows, x, h, &ih_t[matrix], &hh_t[matrix], &bias[(size_t)c * 4 * size], gates);
                    for (int i = 0; i < rows; i++) {
                        T *g = gates[i], *next = memories + row(k + 1, c, first + i) * size;
                        for (int j = 0; j < size; j += width) {
                            const V r = sigmoid<T>(load(g + j)), z = sigmoid<T>(load(g + size + j));
                            const V n = hyperbolic_tangent<T>(load(g + 2 * size + j) + r * load(g + 3 * size + j));
                            if (saved) store(g + j, r), store(g + size + j, z), store(g + 2 * size + j, n);
                            store(next + j, n + z * (load(h[i] + j) - n));
                        }
                    }
                }
        }
        copy_last(memories, l);
    }

    void copy_last(const T* from, T* l) const {
        for (int n = 0; n < count; n++)
            for (int k = 0; k <= steps; k++)
                memcpy(l + ((size_t)n * (steps + 1) + k) * size, from + row(k, cells - 1, n) * size, size * sizeof(T));
    }

    // What comes from outside to the memories after step k - 1: g_l [N, steps + 1, D] to the last cell, g_memories to all; either may be null.
    void add_outside(int k, int c, int first, int rows, const T* g_l, const T* g_memories, T* to) const {
        for (int i = 0; i < rows; i++) {
            const T* from[2] = {g_l && c == cells - 1 ? g_l + ((size_t)(first + i) * (steps + 1) + k) * size : nullptr,
                                g_memories ? g_memories + row(k, c, first + i) * size : nullptr};
            for (const T* each : from)
                if (each)
                    for (int j = 0; j < size; j++) to[(size_t)i * size + j] += each[j];
        }
    }

    // From the gradients of the gates' arguments [p_r, p_z, a, m] to those of x (added, or stored for the first cell) and h (added).
    void through_weights(int c, int rows, const T* const* g, T* const* to_x, bool add_x, T* const* to_h) const {
        Segment<T> one = {g, 0, ih(c), size, 3 * size};
        if (to_x && add_x) product<T, 1>(rows, size, &one, Accumulate<T>{to_x});
        if (to_x && !add_x) product<T, 1>(rows, size, &one, Store<T>{to_x});
        Segment<T> both[2] = {{g, 0, hh(c), size, 2 * size}, {g, 3 * size, hh(c) + (size_t)2 * size * size, size, size}};
        product<T, 2>(rows, size, both, Accumulate<T>{to_h});
    }

    // Gradients of weights and biases (zero before) out of those of the gates' arguments, g [steps, cells, N, 4 D].
    void weight_gradients(const T* g, const T* of_noise, const T* of_memories, T* g_ih, T* g_hh, T* b_ih, T* b_hh) const {
        const T *x[SAMPLES], *h[SAMPLES], *left[SAMPLES], *left_m[SAMPLES];
        std::vector<T> bias(4 * size);
        for (int c = 0; c < cells; c++) {
            bias.assign(4 * size, 0);
            const size_t matrix = (size_t)c * 3 * size * size;
            for (int k = 0; k < steps; k++)
                for (int first = 0; first < count; first += SAMPLES) {
                    const int rows = count - first < SAMPLES ? count - first : SAMPLES;
                    inputs(k, c, first, rows, of_noise, of_memories, x, h);
                    for (int i = 0; i < rows; i++) left[i] = g + row(k, c, first + i) * 4 * size, left_m[i] = left[i] + 3 * size;
                    add_outer(rows, left, x, 3 * size, size, g_ih + matrix, size);
                    add_outer(rows, left, h, 2 * size, size, g_hh + matrix, size);
                    add_outer(rows, left_m, h, size, size, g_hh + matrix + (size_t)2 * size * size, size);
                    if (b_ih) add_rows(rows, left, 4 * size, bias.data());
                }
            if (!b_ih) continue;
            for (int j = 0; j < 3 * size; j++) b_ih[c * 3 * size + j] = bias[j];
            for (int j = 0; j < 3 * size; j++) b_hh[c * 3 * size + j] = bias[j < 2 * size ? j : j + size];
        }
    }

    void backward(const T* g_l, const T* g_memories, T* g_noise, T* g_first, T* g_ih, T* g_hh, T* b_ih, T* b_hh) {
        VECTORS(T);
        const size_t block = (size_t)SAMPLES * size;
        const std::unique_ptr<T[]> g(new T[(size_t)steps * cells * count * 4 * size]);
        std::vector<T> running(cells * block);
        T *to_x[SAMPLES], *to_h[SAMPLES];
        const T* arguments_[SAMPLES];
        for (int first = 0; first < count; first += SAMPLES) {
            const int rows = count - first < SAMPLES ? count - first : SAMPLES;
            running.assign(cells * block, 0);
            for (int c = 0; c < cells; c++) add_outside(steps, c, first, rows, g_l, g_memories, &running[c * block]);
            for (int k = steps - 1; k >= 0; k--)
                for (int c = cells - 1; c >= 0; c--) {
                    for (int i = 0; i < rows; i++) {
                        const size_t at = row(k, c, first + i);
                        const T *gate = saved + at * 4 * size, *h = memories + at * size;
                        T *now = &running[c * block + (size_t)i * size], *out = &g[at * 4 * size];
                        for (int j = 0; j < size; j += width) {
                            const V r = load(gate + j), z = load(gate + size + j), n = load(gate + 2 * size + j);
                            const V m = load(gate + 3 * size + j), gradient = load(now + j);
                            const V q = (T(1) - n * n) * (T(1) - z) * gradient;
                            store(out + j, r * (T(1) - r) * m * q);
                            store(out + size + j, z * (T(1) - z) * (load(h + j) - n) * gradient);
                            store(out + 2 * size + j, q);
                            store(out + 3 * size + j, r * q);
                            store(now + j, z * gradient);
                        }
                        arguments_[i] = out;
                        to_h[i] = now;
                        to_x[i] = c > 0 ? &running[(c - 1) * block + (size_t)i * size] : g_noise + input_row(k, first + i) * size;
                    }
                    through_weights(c, rows, arguments_, to_x, c > 0, to_h);
                    add_outside(k, c, first, rows, g_l, g_memories, &running[c * block]);
                }
            for (int c = 0; c < cells; c++)
                memcpy(g_first + row(0, c, first) * size, &running[c * block], (size_t)rows * size * sizeof(T));
        }
        if (g_ih) weight_gradients(g.get(), noise, memories, g_ih, g_hh, b_ih, b_hh);
    }

    // Derivatives of  phi = <v_noise, g_noise> + <v_first, g_first>,  g being what backward() finds for g_l and g_memories. phi is also
    // the derivative of <g, memories> along (v_noise, v_first), so: a forward pass of tangents t_*, then a backward pass through
    // both, with alpha for what reaches the tangents (the first-order gradients again) and beta for what reaches the values.
    // t_memories [steps + 1, cells, N, D] (v_first in its beginning) and t_l are also phi's derivatives for g_memories and g_l.
    void second(const T* g_l, const T* g_memories, const T* v_noise, T* t_memories, T* t_l, T* d_noise, T* d_first, T* d_ih, T* d_hh,
                T* b_ih, T* b_hh) {
        VECTORS(T);
        const size_t block = (size_t)SAMPLES * size, all_gates = (size_t)steps * cells * count * 4 * size;
        const std::vector<T> ih_t = transposed(weight_ih, cells, size), hh_t = transposed(weight_hh, cells, size);
        const std::vector<T> zero(4 * size, 0);
        const std::unique_ptr<T[]> tangents(new T[all_gates]), of_tangents(new T[all_gates]), of_values(new T[all_gates]);
        std::vector<T> running(2 * cells * block);
        const T *x[SAMPLES], *h[SAMPLES], *arguments_[2 * SAMPLES];
        T *to[SAMPLES], *to_x[2 * SAMPLES], *to_h[2 * SAMPLES];
        std::vector<T> unused(block);
        for (int first = 0; first < count; first += SAMPLES) {
            const int rows = count - first < SAMPLES ? count - first : SAMPLES;
            for (int k = 0; k < steps; k++)
                for (int c = 0; c < cells; c++) {
                    inputs(k, c, first, rows, v_noise, t_memories, x, h);
                    for (int i = 0; i < rows; i++) to[i] = &tangents[row(k, c, first + i) * 4 * size];
                    const size_t matrix = (size_t)c * 3 * size * size;
                    arguments(rows, x, h, &ih_t[matrix], &hh_t[matrix], zero.data(), to);
                    for (int i = 0; i < rows; i++) {
                        const size_t at = row(k, c, first + i);
                        const T *gate = saved + at * 4 * size, *before = memories + at * size;
                        T *tangent = to[i], *next = t_memories + row(k + 1, c, first + i) * size;
                        for (int j = 0; j < size; j += width) {
                            const V r = load(gate + j), z = load(gate + size + j), n = load(gate + 2 * size + j);
                            const V m = load(gate + 3 * size + j), t_r = r * (T(1) - r) * load(tangent + j);
                            const V t_z = z * (T(1) - z) * load(tangent + size + j);
                            const V t_q = load(tangent + 2 * size + j) + t_r * m + r * load(tangent + 3 * size + j);
                            const V t_n = (T(1) - n * n) * t_q;
                            store(tangent + 2 * size + j, t_q);
                            store(next + j, t_n + t_z * (load(before + j) - n) + z * (load(h[i] + j) - t_n));
                        }
                    }
                }
            running.assign(running.size(), 0);
            for (int c = 0; c < cells; c++) add_outside(steps, c, first, rows, g_l, g_memories, &running[c * block]);
            for (int k = steps - 1; k >= 0; k--)
                for (int c = cells - 1; c >= 0; c--) {
                    for (int i = 0; i < rows; i++) {
                        const size_t at = row(k, c, first + i);
                        const T *gate = saved + at * 4 * size, *before = memories + at * size, *tangent = &tangents[at * 4 * size];
                        const T* t_before = t_memories + at * size;
                        T *alpha_now = &running[c * block + (size_t)i * size];
                        T *beta_now = &running[(cells + c) * block + (size_t)i * size];
                        T *out_t = &of_tangents[at * 4 * size], *out = &of_values[at * 4 * size];
                        for (int j = 0; j < size; j += width) {
                            const V r = load(gate + j), z = load(gate + size + j), n = load(gate + 2 * size + j);
                            const V m = load(gate + 3 * size + j), alpha = load(alpha_now + j), beta = load(beta_now + j);
                            const V slope_r = r * (T(1) - r), slope_z = z * (T(1) - z), slope_n = T(1) - n * n;
                            const V t_pr = load(tangent + j), t_pz = load(tangent + size + j), t_q = load(tangent + 2 * size + j);
                            const V t_m = load(tangent + 3 * size + j), t_r = slope_r * t_pr, t_z = slope_z * t_pz;
                            const V away = load(before + j) - n, of_t_n = (T(1) - z) * alpha, of_t_z = away * alpha;
                            const V of_t_q = slope_n * of_t_n, of_t_r = m * of_t_q;
                            const V of_n = (T(1) - z) * beta - t_z * alpha - T(2) * n * t_q * of_t_n, of_q = slope_n * of_n;
                            const V of_z = (load(t_before + j) - slope_n * t_q) * alpha + away * beta + (T(1) - T(2) * z) * t_pz * of_t_z;
                            const V of_r = t_m * of_t_q + m * of_q + (T(1) - T(2) * r) * t_pr * of_t_r;
                            store(out_t + j, slope_r * of_t_r);
                            store(out_t + size + j, slope_z * of_t_z);
                            store(out_t + 2 * size + j, of_t_q);
                            store(out_t + 3 * size + j, r * of_t_q);
                            store(out + j, slope_r * of_r);
                            store(out + size + j, slope_z * of_z);
                            store(out + 2 * size + j, of_q);
                            store(out + 3 * size + j, t_r * of_t_q + r * of_q);
                            store(alpha_now + j, z * alpha);
                            store(beta_now + j, t_z * alpha + z * beta);
                        }
                        arguments_[i] = out_t, arguments_[rows + i] = out;
                        to_h[i] = alpha_now, to_h[rows + i] = beta_now;
                        if (c > 0) {
                            to_x[i] = &running[(c - 1) * block + (size_t)i * size];
                            to_x[rows + i] = &running[(cells + c - 1) * block + (size_t)i * size];
                        } else {
                            to_x[i] = &unused[(size_t)i * size];  // the first-order gradient of the noise is known already
                            to_x[rows + i] = d_noise + input_row(k, first + i) * size;
                        }
                    }
                    through_weights(c, 2 * rows, arguments_, to_x, c > 0, to_h);
                    add_outside(k, c, first, rows, g_l, g_memories, &running[c * block]);
                }
            for (int c = 0; c < cells; c++)
                memcpy(d_first + row(0, c, first) * size, &running[(cells + c) * block], (size_t)rows * size * sizeof(T));
        }
        copy_last(t_memories, t_l);
        weight_gradients(of_values.get(), noise, memories, d_ih, d_hh, b_ih, b_hh);
        weight_gradients(of_tangents.get(), v_noise, t_memories, d_ih, d_hh, nullptr, nullptr);  // no bias in a tangent
    }
};

}  // namespace
