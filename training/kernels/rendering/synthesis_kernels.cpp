// What lies between two convolutions of StyleGAN2 on a processor, in one pass over the maps: the upsampling filter, demodulation,
// noise, bias, activation and clamp, the next layer's modulation, and the picture's part (ToRGB and the upsampled picture before it).
//
// Plain C functions over raw pointers; training/kernels/native_code.py compiles this file and training/kernels/rendering/fast_stylegan2.py calls it.
// Maps are [N, H, W, C] (channels last), float or bfloat16; all arithmetic is in float.

#include <algorithm>
#include <thread>
#include <vector>

#include "vectors.h"

namespace {

enum Kind { SAME = 0, TRANSPOSED = 1, PHASES = 2 };
const int MOST_COLORS = 4;

}  // namespace

// Mirrored by training/kernels/rendering/fast_stylegan2.py. H and W are those of the result.
struct Layer {
    const void* source;         // SAME: [N, H, W, C]; TRANSPOSED: [N, H + 1, W + 1, C], to be filtered; PHASES: [N, H/2, W/2, 4, C]
    void* target;               // [N, H, W, C]; may be the source if SAME; null: only the picture is wanted
    const float* scale;         // [N, C]; null: 1
    const float* shift;         // [C]
    const float* noise;         // [1 or N, H, W]; null: none
    const float* next_scale;    // [N, C], the next layer's styles; null: 1
    const float* color_weight;  // [N, colors, C]
    const float* color_shift;   // [colors]
    const float* before;        // picture of half the size [N, H/2, W/2, colors]; null: none
    float* picture;             // [N, H, W, colors]
    int64_t samples, height, width, channels, colors, noise_samples, kind, threads;
    int64_t begin, end;      // rows of the result to make, of all samples together
    int64_t source_begin;    // row of the whole map that the source begins with, where that holds a part of one sample
    float taps[4];    // upsampling filter along one axis, turned, with its gain
    float slope;      // of the leaky ReLU, 0 to 1
    float clamp;      // < 0: none
    float color_clamp;
};

namespace {

// One pixel's channels: from `read(c)` to the map and to the sums of the picture's colours.
template <class X, class T, int colors, class Read>
INLINE void channels_of(const Layer& l, int64_t from, int64_t to, int step, int64_t n, float noise, T* target, X* sums, Read read) {
    const int64_t C = l.channels;
    const float* scale = l.scale ? l.scale + n * C : nullptr;
    const float* next = l.next_scale ? l.next_scale + n * C : nullptr;
    const float* weight = colors ? l.color_weight + n * colors * C : nullptr;
    for (int64_t c = from; c < to; c += step) {
        X v = read(c);
        const X shift = load(l.shift + c, (X*)0) + noise;
        v = scale ? v * load(scale + c, (X*)0) + shift : v + shift;
        v = larger(v, v * l.slope);
        if (l.clamp >= 0) v = smaller(larger(v, X{} - l.clamp), X{} + l.clamp);
        for (int k = 0; k < colors; k++) sums[k] += v * load(weight + k * C + c, (X*)0);
        if (target) store(target + c, next ? v * load(next + c, (X*)0) : v);
    }
}

template <class T, int colors, class ReadV, class ReadS>
INLINE void pixel(const Layer& l, int64_t n, float noise, T* target, float* picture, ReadV read_vector, ReadS read_one) {
    const int64_t whole = l.channels / LANES * LANES;
    V sums[MOST_COLORS] = {};
    float rest[MOST_COLORS] = {};
    channels_of<V, T, colors>(l, 0, whole, LANES, n, noise, target, sums, read_vector);
    if (whole < l.channels) channels_of<float, T, colors>(l, whole, l.channels, 1, n, noise, target, rest, read_one);
    for (int k = 0; k < colors; k++) {
        float v = total(sums[k]) + rest[k] + l.color_shift[k];
        if (l.color_clamp >= 0) v = smaller(larger(v, -l.color_clamp), l.color_clamp);
        picture[k] += v;
    }
}

// The picture of half the size at row y of the whole one, with the same filter.
void upsample_row(const Layer& l, int64_t n, int64_t y, float* row, float* blend) {
    const int64_t height = l.height / 2, width = l.width / 2, size = width * l.colors, K = l.colors;
    const float* before = l.before + n * height * size;
    const int64_t first = y % 2 ? y / 2 : y / 2 - 1;
    const float a = y % 2 ? l.taps[1] : l.taps[0], b = y % 2 ? l.taps[3] : l.taps[2];
    const float* upper = first >= 0 ? before + first * size : nullptr;
    const float* lower = first + 1 < height ? before + (first + 1) * size : nullptr;
    std::fill(blend, blend + K, 0.f);
    std::fill(blend + K + size, blend + 2 * K + size, 0.f);
    for (int64_t i = 0; i < size; i++) blend[K + i] = (upper ? a * upper[i] : 0.f) + (lower ? b * lower[i] : 0.f);
    for (int64_t x = 0; x < width; x++)
        for (int64_t k = 0; k < K; k++) {
            const float* p = blend + x * K + k;
            row[2 * x * K + k] = l.taps[0] * p[0] + l.taps[2] * p[K];
            row[(2 * x + 1) * K + k] = l.taps[1] * p[K] + l.taps[3] * p[2 * K];
        }
}

template <class T, int colors> void rows(const Layer& l, int64_t begin, int64_t end) {
    const int64_t C = l.channels, H = l.height, W = l.width;
    const int64_t S = l.source_begin;
    const T* source = (const T*)l.source;
    std::vector<float> filtered(l.kind == TRANSPOSED ? (W + 3) * C : 0), blend(l.before ? (W / 2 + 2) * colors : 0);
    std::vector<float> colors_of_row(colors * W);
    for (int64_t index = begin; index < end; index++) {
        const int64_t n = index / H, y = index % H;
        float* picture = colors ? l.picture + index * W * colors : nullptr;
        if (colors) {
            if (l.before) upsample_row(l, n, y, picture, blend.data());
            else std::fill(picture, picture + W * colors, 0.f);
        }
        if (l.kind == TRANSPOSED) {  // along the columns, with a zero pixel at both ends of the row
            const T* top[4];
            float taps[4];
            int used = 0;
            for (int k = 0; k < 4; k++) {
                const int64_t row = y + k - 1;
                if (row < 0 || row > H) continue;
                top[used] = source + (n * (H + 1) + row - S) * (W + 1) * C;
                taps[used++] = l.taps[k];
            }
            const int64_t size = (W + 1) * C, whole = size / LANES * LANES;
            float* out = filtered.data() + C;
            auto sum = [&](int64_t from, int64_t to, int step, auto x) {
                typedef decltype(x) X;
                for (int64_t i = from; i < to; i += step) {
                    X v = load(top[0] + i, (X*)0) * taps[0];
                    for (int k = 1; k < used; k++) v += load(top[k] + i, (X*)0) * taps[k];
                    store(out + i, v);
                }
            };
            sum(0, whole, LANES, V{});
            sum(whole, size, 1, 0.f);
        }
        const float* noise = l.noise ? l.noise + ((l.noise_samples > 1 ? n : 0) * H + y) * W : nullptr;
        T* target = l.target ? (T*)l.target + index * W * C : nullptr;
        for (int64_t x = 0; x < W; x++) {
            const float strength = noise ? noise[x] : 0.f;
            T* to = target ? target + x * C : nullptr;
            float* color = picture + x * colors;
            if (l.kind == TRANSPOSED) {
                const float* f = filtered.data() + x * C;
                auto read = [&](int64_t c, auto like) {
                    typedef decltype(like) X;
                    const float* p = f + c;
                    return load(p, (X*)0) * l.taps[0] + load(p + C, (X*)0) * l.taps[1] + load(p + 2 * C, (X*)0) * l.taps[2] +
                           load(p + 3 * C, (X*)0) * l.taps[3];
                };
                pixel<T, colors>(l, n, strength, to, color, [&](int64_t c) { return read(c, V{}); },
                                 [&](int64_t c) { return read(c, 0.f); });
            } else {
                const T* p = l.kind == SAME ? source + ((index - S) * W + x) * C
                                            : source + (((n * (H / 2) + y / 2 - S) * (W / 2) + x / 2) * 4 + y % 2 * 2 + x % 2) * C;
                pixel<T, colors>(l, n, strength, to, color, [&](int64_t c) { return load(p + c, (V*)0); },
                                 [&](int64_t c) { return load(p + c, (float*)0); });
            }
        }
    }
}

template <class T> void run(const Layer& l) {
    void (*work)(const Layer&, int64_t, int64_t) =
        l.colors == 0 ? rows<T, 0> : l.colors == 1 ? rows<T, 1> : l.colors == 2 ? rows<T, 2> : l.colors == 3 ? rows<T, 3> : rows<T, 4>;
    const int64_t count = l.end - l.begin;
    // A thread takes about as long to start as 50,000 numbers take.
    const int64_t worth = count * l.width * l.channels / 100000 + 1;
    const int64_t threads = std::max<int64_t>(1, std::min({l.threads, worth, count}));
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; i++)
        others.emplace_back([&, i] { work(l, l.begin + count * i / threads, l.begin + count * (i + 1) / threads); });
    work(l, l.begin, l.begin + count / threads);
    for (auto& other : others) other.join();
}

}  // namespace

extern "C" void between_convolutions_float(const Layer* layer) { run<float>(*layer); }
extern "C" void between_convolutions_bfloat16(const Layer* layer) { run<bfloat>(*layer); }
