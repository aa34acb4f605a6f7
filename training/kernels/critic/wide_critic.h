// The critic's passes where its first layer has been applied already: from the sums of that layer to what it gets back.
#pragma once

#include "critic.h"

namespace {

template <class T> struct WideCritic {
    Critic<T> tail;  // all layers but the first
    T slope;         // after the first one
    int outputs, wide;
    std::vector<T> bias, bias_gradient, gram, products, scaled, outer;
    std::vector<T*> product_rows, scaled_rows;

    WideCritic(int num_frames, int num_linear, int num_layers, const int* widths, const double* slopes)
        : tail(widths[0], num_frames, num_linear - 1, num_layers - 1, widths + 1, slopes + 1), slope(T(slopes[0])), outputs(widths[0]) {
        wide = tail.layers[0].wide_inputs;
        bias.assign(wide, 0), bias_gradient.assign(wide, 0);
        gram.assign((size_t)wide * wide, 0), outer.assign((size_t)wide * wide, 0);
        const size_t rows = (size_t)BLOCK * num_frames;
        products.assign(rows * wide, 0), scaled.assign(rows * wide, 0);
        for (size_t row = 0; row < rows; row++) {
            product_rows.push_back(&products[row * wide]);
            scaled_rows.push_back(&scaled[row * wide]);
        }
    }

    // parameters: bias of the first layer, then weight and bias of each other one.
    void prepare(const T* const* parameters) {
        memcpy(bias.data(), parameters[0], outputs * sizeof(T));
        tail.prepare(parameters + 1);
    }

    T* activations(int row) { return tail.layers[0].frames[row]; }

    // Sums of frame `row` of the block, without bias, become its activations; between two frames with a place other than 0.
    void put(int row, const T* sums, const T* other, T place) {
        T* to = activations(row);
        for (int j = 0; j < outputs; j++) {
            const T z = sums[j] + place * (other[j] - sums[j]) + bias[j];
            to[j] = z > 0 ? z : z * slope;
        }
    }

    void back(int count, T weight) {  // r becomes the gradient for the sums
        tail.backward(count, weight, true);
        for (int row = 0; row < count * tail.num_frames; row++) {
            const T* a = activations(row);
            T* d = tail.r_rows[row];
            for (int j = 0; j < wide; j++) d[j] = a[j] > 0 ? d[j] : d[j] * slope;
        }
    }

    // sums, d [batch, frames, outputs]
    void scores(const T* const* parameters, const T* sums, int batch, T* scores, T* d) {
        prepare(parameters);
        const int frames = tail.num_frames;
        for (int first = 0; first < batch; first += BLOCK) {
            const int count = std::min(BLOCK, batch - first), rows = count * frames;
            const T* from = sums + (size_t)first * frames * outputs;
            for (int row = 0; row < rows; row++) put(row, from + (size_t)row * outputs, from + (size_t)row * outputs, 0);
            tail.forward(count, scores + first);
            back(count, 1);
            for (int row = 0; row < rows; row++)
                memcpy(d + ((size_t)first * frames + row) * outputs, tail.r_rows[row], outputs * sizeof(T));
        }
    }

    // d: of real and fake windows; outer [outputs, outputs]: sum over interpolated frames of factor d d^T.
    void update(const T* const* parameters, T* const* gradients, const T* real, const T* fake, const T* weights_gram, const T* mix,
                int batch, double lambda, T* scores, T* penalty, T* d, T* penalty_outer) {
        prepare(parameters);
        tail.clear();
        std::fill(bias_gradient.begin(), bias_gradient.end(), T(0));
        std::fill(outer.begin(), outer.end(), T(0));
        for (int i = 0; i < outputs; i++) memcpy(&gram[(size_t)i * wide], weights_gram + (size_t)i * outputs, outputs * sizeof(T));
        const int frames = tail.num_frames;
        const size_t size = (size_t)frames * outputs;
        for (int which = 0; which < 2; which++) {
            const T weight = T(which ? 1.0 : -1.0) / batch;
            for (int first = 0; first < batch; first += BLOCK) {
                const int count = std::min(BLOCK, batch - first), rows = count * frames;
                const T* from = (which ? fake : real) + first * size;
                for (int row = 0; row < rows; row++) put(row, from + (size_t)row * outputs, from + (size_t)row * outputs, 0);
                tail.forward(count, scores + which * batch + first);
                back(count, weight);
                tail.add_gradients(count, weight, true);
                add_rows(rows, (const T* const*)tail.r_rows.data(), wide, bias_gradient.data());
                for (int row = 0; row < rows; row++)
                    memcpy(d + (which * batch + first) * size + (size_t)row * outputs, tail.r_rows[row], outputs * sizeof(T));
            }
        }
        T unused[BLOCK];
        for (int first = 0; first < batch; first += BLOCK) {
            const int count = std::min(BLOCK, batch - first), rows = count * frames;
            const T *from = real + first * size, *to = fake + first * size;
            for (int row = 0; row < rows; row++)
                put(row, from + (size_t)row * outputs, to + (size_t)row * outputs, mix[first + row / frames]);
            tail.forward(count, unused);
            back(count, 1);
            Segment<T> part = {(const T* const*)tail.r_rows.data(), 0, gram.data(), wide, wide};
            product<T, 1>(rows, wide, &part, Store<T>{product_rows.data()});
            for (int n = 0; n < count; n++) {
                const size_t offset = (size_t)n * frames * wide, numbers = (size_t)frames * wide;
                const T *gradient = &tail.r[offset], *times = &products[offset];
                typename Lanes<T>::V sum = {};
                for (size_t j = 0; j < numbers; j += Lanes<T>::width) sum += load(gradient + j) * load(times + j);
                const T norm = std::sqrt(std::max(total<T>(sum), T(0)));
                penalty[first + n] = (norm - 1) * (norm - 1);
                const T factor = norm > 0 ? T(2 * lambda / batch) * (1 - 1 / norm) : 0;
                for (size_t j = 0; j < numbers; j++) scaled[offset + j] = factor * gradient[j];
                for (int t = 0; t < frames; t++) {
                    T* a = activations(n * frames + t);
                    const T* u = times + (size_t)t * wide;
                    for (int j = 0; j < wide; j++) a[j] = factor * (a[j] > 0 ? u[j] : u[j] * slope);
                }
            }
            tail.linearised(count);
            tail.add_gradients(count, 1, false);
            add_outer(rows, (const T* const*)tail.r_rows.data(), (const T* const*)scaled_rows.data(), wide, wide, outer.data(), wide);
        }
        memcpy(gradients[0], bias_gradient.data(), outputs * sizeof(T));
        tail.give(gradients + 1);
        for (int i = 0; i < outputs; i++) memcpy(penalty_outer + (size_t)i * outputs, &outer[(size_t)i * wide], outputs * sizeof(T));
    }
};

}  // namespace
