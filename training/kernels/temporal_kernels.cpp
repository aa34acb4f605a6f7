// The temporal step's inner loops for processors: the critic's passes and the recurrence of the generator, one thread, float and double.
//
// Plain C functions over raw pointers, so that compiling needs no header of PyTorch and takes seconds; training/kernels/native_code.py
// compiles this file and training/kernels/critic/critic_gradients.py and training/kernels/recurrence/fast_rollout.py call it. All loops run over small blocks of
// samples, whose activations stay in the cache through all passes. The vectors are those of the compiler (GCC, Clang), as wide as
// the processor's.

#include <cstdint>
#include <cstring>
#include <cmath>
#include <memory>
#include <vector>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define MANY_REGISTERS 1
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define MANY_REGISTERS 0
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define MANY_REGISTERS 1
#else
#define VECTOR_BYTES 16
#define MANY_REGISTERS 0
#endif

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

namespace {

template <class T> struct Bits;
template <> struct Bits<float> { typedef int32_t type; static constexpr int mantissa = 23, bias = 127, terms = 7; };
template <> struct Bits<double> { typedef int64_t type; static constexpr int mantissa = 52, bias = 1023, terms = 13; };

template <class T> struct Lanes {
    static constexpr int width = VECTOR_BYTES / sizeof(T);
    typedef T V __attribute__((vector_size(VECTOR_BYTES)));
    typedef T U __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));  // in memory
    typedef typename Bits<T>::type I __attribute__((vector_size(VECTOR_BYTES)));
};

#define VECTORS(T) typedef typename Lanes<T>::V V; constexpr int width = Lanes<T>::width; (void)width

template <class T> INLINE typename Lanes<T>::V load(const T* p) { return *(const typename Lanes<T>::U*)p; }
template <class T> INLINE void store(T* p, typename Lanes<T>::V v) { *(typename Lanes<T>::U*)p = v; }
template <class T> INLINE typename Lanes<T>::V all(T x) { return x - typename Lanes<T>::V{}; }
template <class T> INLINE T total(typename Lanes<T>::V v) {
    T sum = 0;
    for (int i = 0; i < Lanes<T>::width; i++) sum += v[i];
    return sum;
}

int round_up(int n, int to) { return (n + to - 1) / to * to; }

//----------------------------------------------------------------------------
// Functions of the gates.

// For y <= 0: part = exp(y) / scale - 1 and scale, a power of two, so that exp(y) - 1 = scale * part + (scale - 1) keeps small y exact.
template <class T> INLINE void exp_parts(typename Lanes<T>::V y, typename Lanes<T>::V& part, typename Lanes<T>::V& scale) {
    VECTORS(T);
    typedef typename Lanes<T>::I I;
    constexpr int mantissa = Bits<T>::mantissa;
    const V lowest = all<T>(sizeof(T) == 4 ? T(-87) : T(-708));
    y = y < lowest ? lowest : y;
    const T magic = T(3) * T(int64_t(1) << (mantissa - 1));  // adding it rounds to an integer
    V k = (y * T(1.4426950408889634) + magic) - magic;
    const T high = sizeof(T) == 4 ? T(0.693359375) : T(0.693147180369123816490);  // ln 2 in two parts; k * high is exact
    const T low = sizeof(T) == 4 ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
    V r = (y - k * high) - k * low;
    T factorial = 1;
    T coefficients[Bits<T>::terms + 1];
    UNROLL for (int n = 1; n <= Bits<T>::terms; n++) { factorial *= n; coefficients[n] = 1 / factorial; }
    V sum = all<T>(coefficients[Bits<T>::terms]);
    UNROLL for (int n = Bits<T>::terms - 1; n >= 1; n--) sum = sum * r + coefficients[n];
    part = sum * r;
    I exponent = (__builtin_convertvector(k, I) + Bits<T>::bias) << mantissa;
    scale = (V)exponent;
}

template <class T> INLINE typename Lanes<T>::V sigmoid(typename Lanes<T>::V x) {
    VECTORS(T);
    V part, scale;
    exp_parts<T>(x > T(0) ? -x : x, part, scale);
    V e = scale * part + scale, quotient = T(1) / (e + T(1));
    return x > T(0) ? quotient : e * quotient;
}

template <class T> INLINE typename Lanes<T>::V hyperbolic_tangent(typename Lanes<T>::V x) {
    VECTORS(T);
    V part, scale;
    exp_parts<T>((x > T(0) ? -x : x) * T(2), part, scale);
    V less_one = scale * part + (scale - T(1)), value = less_one / (less_one + T(2));  // tanh(-|x|)
    return x > T(0) ? -value : value;
}

//----------------------------------------------------------------------------
// Products of small matrices. Rows are found through lists of pointers, so that windows which overlap, padding and blocks of samples
// need no copies; columns are padded to whole vectors by those who make the matrices.

template <class T> struct Segment {  // one part of a sum of products: row i of A is a[i] .., B is b [depth, stride]
    const T* const* a;
    int offset;
    const T* b;
    int stride, depth;
};

template <class T, int ROWS, int COLUMNS, int PARTS, class Finish>
INLINE void product_tile(int i, int j, const Segment<T>* parts, const Finish& finish) {
    VECTORS(T);
    V sum[ROWS][COLUMNS] = {};
    UNROLL for (int part = 0; part < PARTS; part++) {
        const T* a[ROWS];
        UNROLL for (int r = 0; r < ROWS; r++) a[r] = parts[part].a[i + r] + parts[part].offset;
        const T* b = parts[part].b + j;
        const int depth = parts[part].depth, stride = parts[part].stride;
        for (int k = 0; k < depth; k++, b += stride) {
            V column[COLUMNS];
            UNROLL for (int c = 0; c < COLUMNS; c++) column[c] = load(b + c * width);
            UNROLL for (int r = 0; r < ROWS; r++) {
                const T factor = a[r][k];
                UNROLL for (int c = 0; c < COLUMNS; c++) sum[r][c] += factor * column[c];
            }
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < COLUMNS; c++) finish(i + r, j + c * width, sum[r][c]);
}

template <class T, int COLUMNS, int PARTS, class Finish>
void product_columns(int rows, int j, const Segment<T>* parts, const Finish& finish) {
    constexpr int most = MANY_REGISTERS ? (COLUMNS == 4 ? 6 : 8) : (COLUMNS == 2 ? 6 : 8);
    int i = 0;
    for (; i + most <= rows; i += most) product_tile<T, most, COLUMNS, PARTS>(i, j, parts, finish);
    for (; i + 2 <= rows; i += 2) product_tile<T, 2, COLUMNS, PARTS>(i, j, parts, finish);
    for (; i < rows; i++) product_tile<T, 1, COLUMNS, PARTS>(i, j, parts, finish);
}

// finish(i, j, v) gets the numbers j .. of row i of the sum over all parts of A B.
template <class T, int PARTS, class Finish>
void product(int rows, int columns, const Segment<T>* parts, const Finish& finish) {
    constexpr int width = Lanes<T>::width;
    int j = 0;
    if (MANY_REGISTERS)
        for (; j + 4 * width <= columns; j += 4 * width) product_columns<T, 4, PARTS>(rows, j, parts, finish);
    for (; j + 2 * width <= columns; j += 2 * width) product_columns<T, 2, PARTS>(rows, j, parts, finish);
    for (; j < columns; j += width) product_columns<T, 1, PARTS>(rows, j, parts, finish);
}

template <class T, int ROWS, int COLUMNS>
INLINE void outer_tile(int count, const T* const* a, const T* const* b, int i, int j, T* out, int stride) {
    VECTORS(T);
    V sum[ROWS][COLUMNS] = {};
    for (int k = 0; k < count; k++) {
        const T *left = a[k] + i, *right = b[k] + j;
        V column[COLUMNS];
        UNROLL for (int c = 0; c < COLUMNS; c++) column[c] = load(right + c * width);
        UNROLL for (int r = 0; r < ROWS; r++) {
            const T factor = left[r];
            UNROLL for (int c = 0; c < COLUMNS; c++) sum[r][c] += factor * column[c];
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int c = 0; c < COLUMNS; c++) {
            T* to = out + (long)(i + r) * stride + j + c * width;
            store(to, load(to) + sum[r][c]);
        }
}

template <class T, int COLUMNS>
void outer_columns(int count, const T* const* a, const T* const* b, int rows, int j, T* out, int stride) {
    int i = 0;
    for (; i + 8 <= rows; i += 8) {
        if (MANY_REGISTERS) {
            outer_tile<T, 8, COLUMNS>(count, a, b, i, j, out, stride);
        } else {
            outer_tile<T, 4, COLUMNS>(count, a, b, i, j, out, stride);
            outer_tile<T, 4, COLUMNS>(count, a, b, i + 4, j, out, stride);
        }
    }
    for (; i < rows; i++) outer_tile<T, 1, COLUMNS>(count, a, b, i, j, out, stride);
}

// out [rows, stride] += sum over k of (a[k][0 .. rows])^T (b[k][0 .. columns])
template <class T>
void add_outer(int count, const T* const* a, const T* const* b, int rows, int columns, T* out, int stride) {
    constexpr int width = Lanes<T>::width;
    int j = 0;
    if (MANY_REGISTERS)
        for (; j + 3 * width <= columns && columns - j != 4 * width; j += 3 * width)
            outer_columns<T, 3>(count, a, b, rows, j, out, stride);
    for (; j + 2 * width <= columns; j += 2 * width) outer_columns<T, 2>(count, a, b, rows, j, out, stride);
    for (; j < columns; j += width) outer_columns<T, 1>(count, a, b, rows, j, out, stride);
}

template <class T> void add_rows(int count, const T* const* a, int columns, T* out) {
    constexpr int width = Lanes<T>::width;
    for (int j = 0; j < columns; j += width) {
        typename Lanes<T>::V sum = load(out + j);
        for (int k = 0; k < count; k++) sum += load(a[k] + j);
        store(out + j, sum);
    }
}

template <class T> struct Activate {  // leaky ReLU of the sum and a bias
    T* const* to; const T* bias; T slope;
    INLINE void operator()(int i, int j, typename Lanes<T>::V v) const {
        v += load(bias + j);
        store(to[i] + j, v > T(0) ? v : v * slope);
    }
};

template <class T> struct Mask {  // times the derivative of the leaky ReLU whose values are given
    T* const* to; const T* const* values; T slope;
    INLINE void operator()(int i, int j, typename Lanes<T>::V v) const {
        store(to[i] + j, load(values[i] + j) > T(0) ? v : v * slope);
    }
};

template <class T> struct Store {
    T* const* to;
    INLINE void operator()(int i, int j, typename Lanes<T>::V v) const { store(to[i] + j, v); }
};

template <class T> struct StoreWithBias {
    T* const* to; int offset; const T* bias;
    INLINE void operator()(int i, int j, typename Lanes<T>::V v) const { store(to[i] + offset + j, v + load(bias + j)); }
};

template <class T> struct Accumulate {
    T* const* to;
    INLINE void operator()(int i, int j, typename Lanes<T>::V v) const { store(to[i] + j, load(to[i] + j) + v); }
};

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

    void update(const T* const* parameters, T* const* gradients, const T* real, const T* fake, const T* mix, int batch,
                double lambda, T* scores, T* penalty) {
        prepare(parameters);
        for (CriticLayer<T>& layer : layers) {
            layer.weight_gradient.assign(layer.weight_gradient.size(), 0);
            layer.bias_gradient.assign(layer.bias_gradient.size(), 0);
        }
        top_gradient.assign(top_gradient.size(), 0);
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

#define CRITIC(NAME, T)                                                                                                            \
    extern "C" void* critic_create_##NAME(int features, int frames, int num_linear, int num_layers, const int* widths,             \
                                          const double* slopes) {                                                                  \
        return new Critic<T>(features, frames, num_linear, num_layers, widths, slopes);                                            \
    }                                                                                                                              \
    extern "C" void critic_destroy_##NAME(void* critic) { delete (Critic<T>*)critic; }                                             \
    extern "C" void critic_update_##NAME(void* critic, const T* const* parameters, T* const* gradients, const T* real,             \
                                         const T* fake, const T* mix, int batch, double lambda, T* scores, T* penalty) {           \
        ((Critic<T>*)critic)->update(parameters, gradients, real, fake, mix, batch, lambda, scores, penalty);                      \
    }                                                                                                                              \
    extern "C" void critic_input_gradient_##NAME(void* critic, const T* const* parameters, const T* x, int batch, T* scores,       \
                                                 T* gradient) {                                                                    \
        ((Critic<T>*)critic)->input_gradient(parameters, x, batch, scores, gradient);                                              \
    }

CRITIC(float, float)
CRITIC(double, double)

#define RECURRENCE(NAME, T)                                                                                                        \
    extern "C" void rollout_forward_##NAME(int count, int steps, int cells, int size, const T* noise, const T* ih, const T* hh,    \
                                           const T* b_ih, const T* b_hh, T* memories, T* saved, T* l) {                            \
        Recurrence<T>{count, steps, cells, size, noise, ih, hh, b_ih, b_hh, memories, saved}.forward(l);                           \
    }                                                                                                                              \
    extern "C" void rollout_backward_##NAME(int count, int steps, int cells, int size, const T* noise, const T* ih, const T* hh,   \
                                            T* memories, T* saved, const T* g_l, const T* g_memories, T* g_noise, T* g_first,      \
                                            T* g_ih, T* g_hh, T* g_b_ih, T* g_b_hh) {                                              \
        Recurrence<T>{count, steps, cells, size, noise, ih, hh, nullptr, nullptr, memories, saved}.backward(                       \
            g_l, g_memories, g_noise, g_first, g_ih, g_hh, g_b_ih, g_b_hh);                                                        \
    }                                                                                                                              \
    extern "C" void rollout_second_##NAME(int count, int steps, int cells, int size, const T* noise, const T* ih, const T* hh,     \
                                          T* memories, T* saved, const T* g_l, const T* g_memories, const T* v_noise,              \
                                          T* t_memories, T* t_l, T* d_noise, T* d_first, T* d_ih, T* d_hh, T* d_b_ih,              \
                                          T* d_b_hh) {                                                                             \
        Recurrence<T>{count, steps, cells, size, noise, ih, hh, nullptr, nullptr, memories, saved}.second(                         \
            g_l, g_memories, v_noise, t_memories, t_l, d_noise, d_first, d_ih, d_hh, d_b_ih, d_b_hh);                              \
    }

RECURRENCE(float, float)
RECURRENCE(double, double)

#define STACK(NAME, T)                                                                                                             \
    extern "C" int lanes_##NAME() { return Lanes<T>::width; }                                                                      \
    extern "C" void stack_forward_##NAME(int rows, int num_layers, const int* widths, const double* slopes,                        \
                                         const T* const* parameters, const T* x, T* const* kept, T* out) {                         \
        Stack<T>(rows, num_layers, widths, slopes, parameters).forward(x, kept, out);                                              \
    }                                                                                                                              \
    extern "C" void stack_backward_##NAME(int rows, int num_layers, const int* widths, const double* slopes,                       \
                                          const T* const* parameters, const T* x, T* const* kept, const T* g_out, T* g_x,          \
                                          T* const* gradients) {                                                                   \
        Stack<T>(rows, num_layers, widths, slopes, parameters).backward(x, kept, g_out, g_x, gradients);                           \
    }

STACK(float, float)
STACK(double, double)
