#pragma once

#include "../lanes.h"

namespace {

//----------------------------------------------------------------------------
// The critic.

constexpr int BLOCK = 8;  // samples that go through all layers together

template <class T> struct CriticLayer {
    bool temporal;
    int inputs, outputs, taps;          // channels as they are
    int wide_inputs, wide_outputs;      // and in whole vectors
    int in_frames, out_frames;
    int in_rows, padding;               // rows of a sample's buffer, and those before its first frame
    T slope;
    std::vector<T> input;               // [BLOCK, in_rows, wide_inputs], a_{l-1}
    std::vector<T> delta;               // [BLOCK, out_frames + 2, wide_outputs], m_l * r_l
    std::vector<T> forward, even, odd;  // weights for the products: forward, and backward to frames 2 p and 2 p + 1 (or all)
    std::vector<T> bias, weight_gradient, bias_gradient;
    std::vector<const T*> windows;      // rows of the forward product, out_frames a sample
    std::vector<T*> frames;             // the input's frames, in_frames a sample
    std::vector<T*> deltas;             // out_frames a sample
    std::vector<const T*> even_deltas, odd_deltas;  // rows of the backward products
};

template <class T> struct Critic {
    int features, num_frames, channels, frames;  // channels and frames of the last activations
    int wide_channels;
    std::vector<CriticLayer<T>> layers;
    std::vector<T> top, top_weight, top_gradient, r;  // [BLOCK, frames, wide_channels]; r [BLOCK, num_frames, wide features]
    std::vector<T*> tops, even_targets, odd_targets, r_rows;
    std::vector<std::vector<T*>> even_to, odd_to;     // where a layer's backward product goes, and the values for its mask
    std::vector<std::vector<const T*>> even_mask, odd_mask;

    Critic(int features_, int num_frames_, int num_linear, int num_layers, const int* widths, const double* slopes)
        : features(features_), num_frames(num_frames_), layers(num_layers) {
        constexpr int width = Lanes<T>::width;
        int length = num_frames, count = features;
        for (int l = 0; l < num_layers; l++) {
            CriticLayer<T>& layer = layers[l];
            layer.temporal = l >= num_linear;
            layer.inputs = count;
            layer.outputs = count = widths[l];
            layer.slope = T(slopes[l]);
            layer.wide_inputs = round_up(layer.inputs, width);
            layer.wide_outputs = round_up(layer.outputs, width);
            layer.taps = layer.temporal ? 5 : 1;
            layer.in_frames = length;
            length = layer.out_frames = layer.temporal ? (length - 1) / 2 + 1 : length;
            layer.in_rows = layer.temporal ? 2 * length + 3 : length;
            layer.padding = layer.temporal ? 2 : 0;
            layer.input.assign((size_t)BLOCK * layer.in_rows * layer.wide_inputs, 0);
            layer.delta.assign((size_t)BLOCK * (length + 2) * layer.wide_outputs, 0);
            layer.forward.assign((size_t)layer.taps * layer.wide_inputs * layer.wide_outputs, 0);
            layer.even.assign((size_t)(layer.temporal ? 3 : 1) * layer.wide_outputs * layer.wide_inputs, 0);
            layer.odd.assign((size_t)(layer.temporal ? 2 : 0) * layer.wide_outputs * layer.wide_inputs, 0);
            layer.bias.assign(layer.wide_outputs, 0);
            layer.weight_gradient.assign((size_t)layer.wide_outputs * layer.taps * layer.wide_inputs, 0);
            layer.bias_gradient.assign(layer.wide_outputs, 0);
        }
        channels = count;
        frames = length;
        wide_channels = round_up(channels, width);
        top.assign((size_t)BLOCK * frames * wide_channels, 0);
        top_weight.assign((size_t)frames * wide_channels, 0);
        top_gradient.assign((size_t)frames * wide_channels, 0);
        r.assign((size_t)BLOCK * num_frames * layers[0].wide_inputs, 0);
        for (int n = 0; n < BLOCK; n++) {
            for (int t = 0; t < frames; t++) tops.push_back(&top[((size_t)n * frames + t) * wide_channels]);
            for (int t = 0; t < num_frames; t++) r_rows.push_back(&r[((size_t)n * num_frames + t) * layers[0].wide_inputs]);
            for (CriticLayer<T>& layer : layers) {
                T* rows = &layer.input[(size_t)n * layer.in_rows * layer.wide_inputs];
                T* deltas = &layer.delta[(size_t)n * (layer.out_frames + 2) * layer.wide_outputs];
                for (int t = 0; t < layer.in_frames; t++) layer.frames.push_back(rows + (t + layer.padding) * layer.wide_inputs);
                for (int t = 0; t < layer.out_frames; t++) {
                    layer.windows.push_back(rows + t * (layer.temporal ? 2 : 1) * layer.wide_inputs);
                    layer.deltas.push_back(deltas + (t + 1) * layer.wide_outputs);
                    layer.even_deltas.push_back(deltas + (t + (layer.temporal ? 0 : 1)) * layer.wide_outputs);
                    if (layer.temporal && 2 * t + 1 < layer.in_frames)
                        layer.odd_deltas.push_back(deltas + (t + 1) * layer.wide_outputs);
                }
            }
        }
        even_to.resize(num_layers), odd_to.resize(num_layers), even_mask.resize(num_layers), odd_mask.resize(num_layers);
        for (int l = 0; l < num_layers; l++) {
            const CriticLayer<T>& layer = layers[l];
            const std::vector<T*>& targets = l == 0 ? r_rows : layers[l - 1].deltas;
            for (size_t row = 0; row < targets.size(); row++) {
                bool even = !layer.temporal || row % layer.in_frames % 2 == 0;
                (even ? even_to : odd_to)[l].push_back(targets[row]);
                (even ? even_mask : odd_mask)[l].push_back(layer.frames[row]);
            }
        }
    }

    // parameters: weight and bias of each layer, then of the last one.
    void prepare(const T* const* parameters) {
        for (CriticLayer<T>& layer : layers) {
            const T *weight = *parameters++, *bias = *parameters++;
            const int wide_in = layer.wide_inputs, wide_out = layer.wide_outputs, taps = layer.taps;
            for (int o = 0; o < layer.outputs; o++) {
                layer.bias[o] = bias[o];
                for (int i = 0; i < layer.inputs; i++) {
                    const T* kernel = weight + ((size_t)o * layer.inputs + i) * taps;
                    for (int k = 0; k < taps; k++) layer.forward[((size_t)k * wide_in + i) * wide_out + o] = kernel[k];
                    if (!layer.temporal) {
                        layer.even[(size_t)o * wide_in + i] = kernel[0];
                        continue;
                    }
                    for (int m = 0; m < 3; m++) layer.even[((size_t)m * wide_out + o) * wide_in + i] = kernel[4 - 2 * m];
                    for (int m = 0; m < 2; m++) layer.odd[((size_t)m * wide_out + o) * wide_in + i] = kernel[3 - 2 * m];
                }
            }
        }
        for (int c = 0; c < channels; c++)
            for (int t = 0; t < frames; t++) top_weight[(size_t)t * wide_channels + c] = parameters[0][c * frames + t];
        top_bias = parameters[1][0];
    }

    T top_bias = 0;

    void put(int n, const T* x) {  // [num_frames, features] becomes sample n of the block
        for (int t = 0; t < num_frames; t++)
            memcpy(layers[0].frames[n * num_frames + t], x + (size_t)t * features, features * sizeof(T));
    }

    T* const* outputs(size_t l) { return l + 1 < layers.size() ? layers[l + 1].frames.data() : tops.data(); }

    void forward(int count, T* scores) {
        for (size_t l = 0; l < layers.size(); l++) {
            CriticLayer<T>& layer = layers[l];
            Segment<T> part = {layer.windows.data(), 0, layer.forward.data(), layer.wide_outputs, layer.taps * layer.wide_inputs};
            product<T, 1>(count * layer.out_frames, layer.wide_outputs, &part,
                          Activate<T>{outputs(l), layer.bias.data(), layer.slope});
        }
        const int size = frames * wide_channels;
        for (int n = 0; n < count; n++) {
            typename Lanes<T>::V sum = {};
            for (int j = 0; j < size; j += Lanes<T>::width) sum += load(&top[(size_t)n * size + j]) * load(&top_weight[j]);
            scores[n] = total<T>(sum) + top_bias;
        }
    }

    void backward(int count, T weight, bool to_input) {  // delta of all layers, and r if wanted, for weight * C(x_n)
        CriticLayer<T>& last = layers.back();
        for (int row = 0; row < count * frames; row++) {
            const T* weights = &top_weight[(size_t)(row % frames) * wide_channels];
            for (int j = 0; j < wide_channels; j += Lanes<T>::width) {
                typename Lanes<T>::V v = weight * load(weights + j);
                store(last.deltas[row] + j, load(tops[row] + j) > T(0) ? v : v * last.slope);
            }
        }
        for (int l = (int)layers.size() - 1; l >= (to_input ? 0 : 1); l--) {
            CriticLayer<T>& layer = layers[l];
            const T slope = l == 0 ? T(1) : layers[l - 1].slope;  // 1: no mask
            Segment<T> part = {layer.even_deltas.data(), 0, layer.even.data(), layer.wide_inputs,
                               (layer.temporal ? 3 : 1) * layer.wide_outputs};
            product<T, 1>(count * layer.out_frames, layer.wide_inputs, &part,
                          Mask<T>{even_to[l].data(), even_mask[l].data(), slope});
            if (!layer.temporal) continue;
            part = {layer.odd_deltas.data(), 0, layer.odd.data(), layer.wide_inputs, 2 * layer.wide_outputs};
            product<T, 1>(count * (layer.in_frames / 2), layer.wide_inputs, &part,
                          Mask<T>{odd_to[l].data(), odd_mask[l].data(), slope});
        }
    }

    void linearised(int count) {  // u_l in the place of a_l, after u_0
        for (size_t l = 0; l < layers.size(); l++) {
            CriticLayer<T>& layer = layers[l];
            Segment<T> part = {layer.windows.data(), 0, layer.forward.data(), layer.wide_outputs, layer.taps * layer.wide_inputs};
            product<T, 1>(count * layer.out_frames, layer.wide_outputs, &part,
                          Mask<T>{outputs(l), (const T* const*)outputs(l), layer.slope});
        }
    }

    void add_gradients(int count, T weight, bool biases) {
        for (CriticLayer<T>& layer : layers) {
            add_outer(count * layer.out_frames, (const T* const*)layer.deltas.data(), layer.windows.data(), layer.wide_outputs,
                      layer.taps * layer.wide_inputs, layer.weight_gradient.data(), layer.taps * layer.wide_inputs);
            if (biases) add_rows(count * layer.out_frames, (const T* const*)layer.deltas.data(), layer.wide_outputs,
                                 layer.bias_gradient.data());
        }
        const int size = frames * wide_channels;
        for (int n = 0; n < count; n++)
            for (int j = 0; j < size; j++) top_gradient[j] += weight * top[(size_t)n * size + j];
    }

    void clear() {  // no gradients yet
        for (CriticLayer<T>& layer : layers) {
            layer.weight_gradient.assign(layer.weight_gradient.size(), 0);
            layer.bias_gradient.assign(layer.bias_gradient.size(), 0);
        }
        top_gradient.assign(top_gradient.size(), 0);
    }

    void give(T* const* gradients) {  // those that have come together, in the order of the parameters
        for (CriticLayer<T>& layer : layers) {
            T *weight = *gradients++, *bias = *gradients++;
            for (int o = 0; o < layer.outputs; o++) {
                bias[o] = layer.bias_gradient[o];
                for (int i = 0; i < layer.inputs; i++)
                    for (int k = 0; k < layer.taps; k++)
                        weight[((size_t)o * layer.inputs + i) * layer.taps + k] =
                            layer.weight_gradient[((size_t)o * layer.taps + k) * layer.wide_inputs + i];
            }
        }
        for (int c = 0; c < channels; c++)
            for (int t = 0; t < frames; t++) gradients[0][c * frames + t] = top_gradient[(size_t)t * wide_channels + c];
        gradients[1][0] = 0;  // -1 / batch for each real, 1 / batch for each fake window
    }

    void update(const T* const* parameters, T* const* gradients, const T* real, const T* fake, const T* mix, int batch,
                double lambda, T* scores, T* penalty) {
        prepare(parameters);
        clear();
        const size_t size = (size_t)num_frames * features;
        for (int which = 0; which < 2; which++) {
            const T weight = T(which ? 1.0 : -1.0) / batch;
            for (int first = 0; first < batch; first += BLOCK) {
                const int count = batch - first < BLOCK ? batch - first : BLOCK;
                for (int n = 0; n < count; n++) put(n, (which ? fake : real) + (first + n) * size);
                forward(count, scores + which * batch + first);
                backward(count, weight, false);
                add_gradients(count, weight, true);
            }
        }
        std::vector<T> x(size), unused(BLOCK);
        const size_t wide = (size_t)num_frames * layers[0].wide_inputs;
        for (int first = 0; first < batch; first += BLOCK) {
            const int count = batch - first < BLOCK ? batch - first : BLOCK;
            for (int n = 0; n < count; n++) {
                const T place = mix[first + n], *from = real + (first + n) * size, *to = fake + (first + n) * size;
                for (size_t j = 0; j < size; j++) x[j] = from[j] + place * (to[j] - from[j]);
                put(n, x.data());
            }
            forward(count, unused.data());
            backward(count, 1, true);
            for (int n = 0; n < count; n++) {
                const T* gradient = &r[n * wide];
                typename Lanes<T>::V sum = {};
                for (size_t j = 0; j < wide; j += Lanes<T>::width) sum += load(gradient + j) * load(gradient + j);
                const T norm = std::sqrt(total<T>(sum));
                penalty[first + n] = (norm - 1) * (norm - 1);
                // v / batch, lambda included; a gradient that vanishes has none of its own.
                const T factor = norm > 0 ? T(2 * lambda / batch) * (1 - 1 / norm) : 0;
                for (int t = 0; t < num_frames; t++)
                    for (int j = 0; j < layers[0].wide_inputs; j++)
                        layers[0].frames[n * num_frames + t][j] = factor * gradient[(size_t)t * layers[0].wide_inputs + j];
            }
            linearised(count);
            add_gradients(count, 1, false);
        }
        give(gradients);
    }

    void input_gradient(const T* const* parameters, const T* x, int batch, T* scores, T* gradient) {
        prepare(parameters);
        const size_t size = (size_t)num_frames * features;
        for (int first = 0; first < batch; first += BLOCK) {
            const int count = batch - first < BLOCK ? batch - first : BLOCK;
            for (int n = 0; n < count; n++) put(n, x + (first + n) * size);
            forward(count, scores + first);
            backward(count, 1, true);
            for (int row = 0; row < count * num_frames; row++)
                memcpy(gradient + first * size + (size_t)row * features, r_rows[row], features * sizeof(T));
        }
    }
};

}  // namespace
