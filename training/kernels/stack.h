#pragma once

#include "lanes.h"

namespace {

//----------------------------------------------------------------------------
// A stack of linear maps, each with a leaky ReLU (slope 1: none), over rows. Activations are kept in whole vectors, [rows, wide width].

constexpr int ROWS = 128;  // that go through all layers together

template <class T> struct Stack {
    int rows, num_layers;
    const int* widths;  // of the input and of each layer
    const double* slopes;
    const T* const* parameters;  // weight [out, in] and bias of each layer
    std::vector<int> wide;
    std::vector<std::vector<T>> blocks;           // [ROWS, wide] for the input and each layer
    std::vector<std::vector<const T*>> from;      // their rows
    std::vector<std::vector<T*>> to;

    Stack(int rows_, int num_layers_, const int* widths_, const double* slopes_, const T* const* parameters_)
        : rows(rows_), num_layers(num_layers_), widths(widths_), slopes(slopes_), parameters(parameters_) {
        for (int l = 0; l <= num_layers; l++) wide.push_back(round_up(widths[l], Lanes<T>::width));
        blocks.resize(num_layers + 1), from.resize(num_layers + 1), to.resize(num_layers + 1);
    }

    void own(int l) {  // a block of our own for the values after l layers
        blocks[l].assign((size_t)ROWS * wide[l], 0);
        for (int i = 0; i < ROWS; i++) to[l].push_back(&blocks[l][(size_t)i * wide[l]]);
        from[l].assign(to[l].begin(), to[l].end());
    }

    void lies_at(int l, T* activations) {  // or what others keep
        to[l].resize(ROWS), from[l].resize(ROWS);
        for (int i = 0; i < ROWS; i++) from[l][i] = to[l][i] = activations + (size_t)i * wide[l];
    }

    // out [rows, last width]; activations of all layers but the last are kept where `kept` says, or nowhere (null).
    void forward(const T* x, T* const* kept, T* out) {
        std::vector<std::vector<T>> weights(num_layers), biases(num_layers);
        for (int l = 0; l < num_layers; l++) {
            const int in = widths[l], count = widths[l + 1];
            weights[l].assign((size_t)in * wide[l + 1], 0);
            biases[l].assign(wide[l + 1], 0);
            for (int o = 0; o < count; o++) {
                biases[l][o] = parameters[2 * l + 1][o];
                for (int i = 0; i < in; i++) weights[l][(size_t)i * wide[l + 1] + o] = parameters[2 * l][(size_t)o * in + i];
            }
            if (!kept || l == num_layers - 1) own(l + 1);
        }
        from[0].resize(ROWS);
        for (int first = 0; first < rows; first += ROWS) {
            const int count = rows - first < ROWS ? rows - first : ROWS;
            for (int i = 0; i < count; i++) from[0][i] = x + (size_t)(first + i) * widths[0];
            for (int l = 0; l < num_layers; l++) {
                if (kept && l < num_layers - 1) lies_at(l + 1, kept[l] + (size_t)first * wide[l + 1]);
                Segment<T> part = {from[l].data(), 0, weights[l].data(), wide[l + 1], widths[l]};
                product<T, 1>(count, wide[l + 1], &part, Activate<T>{to[l + 1].data(), biases[l].data(), T(slopes[l])});
            }
            for (int i = 0; i < count; i++)
                memcpy(out + (size_t)(first + i) * widths[num_layers], from[num_layers][i], widths[num_layers] * sizeof(T));
        }
    }

    // g_x [rows, first width] if wanted, and gradients of all parameters; the last layer has slope 1.
    void backward(const T* x, T* const* kept, const T* g_out, T* g_x, T* const* gradients) {
        std::vector<std::vector<T>> weights(num_layers), weight_gradients(num_layers), bias_gradients(num_layers);
        for (int l = 0; l < num_layers; l++) {
            const int in = widths[l], count = widths[l + 1];
            weights[l].assign((size_t)wide[l + 1] * wide[l], 0);
            for (int o = 0; o < count; o++) memcpy(&weights[l][(size_t)o * wide[l]], parameters[2 * l] + (size_t)o * in, in * sizeof(T));
            weight_gradients[l].assign((size_t)wide[l + 1] * wide[l], 0);
            bias_gradients[l].assign(wide[l + 1], 0);
        }
        for (int l = 0; l <= num_layers; l++) own(l);  // here: gradients of what is after l layers
        std::vector<T> input((size_t)ROWS * wide[0], 0);
        std::vector<const T*> values(ROWS);
        for (int first = 0; first < rows; first += ROWS) {
            const int count = rows - first < ROWS ? rows - first : ROWS;
            for (int i = 0; i < count; i++) {
                memcpy(to[num_layers][i], g_out + (size_t)(first + i) * widths[num_layers], widths[num_layers] * sizeof(T));
                memcpy(&input[(size_t)i * wide[0]], x + (size_t)(first + i) * widths[0], widths[0] * sizeof(T));
            }
            for (int l = num_layers - 1; l >= 0; l--) {
                for (int i = 0; i < count; i++)
                    values[i] = l == 0 ? &input[(size_t)i * wide[0]] : kept[l - 1] + (size_t)(first + i) * wide[l];
                add_outer(count, from[l + 1].data(), values.data(), wide[l + 1], wide[l], weight_gradients[l].data(), wide[l]);
                add_rows(count, from[l + 1].data(), wide[l + 1], bias_gradients[l].data());
                if (l == 0 && !g_x) continue;
                Segment<T> part = {from[l + 1].data(), 0, weights[l].data(), wide[l], widths[l + 1]};
                product<T, 1>(count, wide[l], &part, Mask<T>{to[l].data(), values.data(), l == 0 ? T(1) : T(slopes[l - 1])});
            }
            for (int i = 0; g_x && i < count; i++) memcpy(g_x + (size_t)(first + i) * widths[0], from[0][i], widths[0] * sizeof(T));
        }
        for (int l = 0; l < num_layers; l++) {
            for (int o = 0; o < widths[l + 1]; o++)
                memcpy(gradients[2 * l] + (size_t)o * widths[l], &weight_gradients[l][(size_t)o * wide[l]], widths[l] * sizeof(T));
            memcpy(gradients[2 * l + 1], bias_gradients[l].data(), widths[l + 1] * sizeof(T));
        }
    }
};

}  // namespace
