// What lies between two convolutions of StyleGAN3 on a processor: demodulation and bias, the upsampling filter, leaky ReLU and clamp,
// the downsampling filter, and the next layer's modulation.
//
// Plain C functions over raw pointers; training/kernels/native_code.py compiles this file and training/kernels/rendering/filtered.py calls
// it. Maps are [N, H, W, C] (channels last), float or bfloat16; all arithmetic is in float.
//
// The map at the raised rate, 4 to 16 times as large, never exists. One vector of channels goes down a strip of columns: what an
// upsampled row needs of the samples above and below it is summed into rows of the raised rate; each of those is filtered along the
// row, activated and filtered back while its numbers are in registers; and where twelve rows are done, they make one of the result.
// Downsampling filters that are no product of two (StyleGAN3-r) take the activated rows themselves, folded along both axes, which
// are symmetric: 36 sums and 36 products in the place of 144 products.

#include <algorithm>
#include <thread>
#include <vector>

#include "vectors.h"

#define UNROLL _Pragma("GCC unroll 16")

// Mirrored by training/kernels/rendering/filtered.py.
struct Filtered {
    const void* source;       // [N, in_height, in_width, C]
    void* target;             // [N, out_height, out_width, C]
    const float* scale;       // [N, C], of the source; null: 1
    const float* shift;       // [C]
    const float* next_scale;  // [N, C], of the result; null: 1
    const float* up_taps;     // [6 up], as a correlation, with the gain of one axis
    const float* down_taps;   // [12] for both axes, or [12, 12], as a correlation; with the activation's gain along the rows
    const float* column_taps; // [12], the same along the columns; null: down_taps are [12, 12]
    int64_t samples, in_height, in_width, out_height, out_width, channels;
    int64_t up, left, above;  // 2 or 4; zeros at the raised rate before the first sample of a row and of a column, negative: cut off
    int64_t strip, threads;   // columns of the result that go through together, an even number; 0: as many as suit the cache
    float slope, limit;       // of the leaky ReLU, 0 to 1; of the result of it
};

namespace {

const int TAPS = 6;            // of one phase of the upsampling filter, and of each half of the downsampling one
const int DOWN = 2 * TAPS;     // taps of the downsampling filter
const int WINDOW = TAPS + 1;   // samples that `up` neighbours of the raised rate are made of
const int ROWS = 16;           // of the raised rate that are kept: 14 make two of the result
const int SAMPLES = 8;         // rows of the source that are kept

const int BLOCK = 4;           // vectors of channels that go together: single ones would be read in pieces too small
const int64_t CACHE = 1 << 19; // bytes that the rows which are kept should take

struct Cell { V v; };  // one vector of channels

INLINE int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Sample j of `UP` neighbours at the raised rate is the sum over k of window[k + (j > PHASE)] taps[k UP + tap_of(j)].
template <int UP, int PHASE> INLINE int tap_of(int j) { return (PHASE - j + UP) % UP; }

template <int UP, int PHASE> INLINE void raise(const V* window, const float* taps, V* fine) {
    UNROLL for (int j = 0; j < UP; j++) {
        V sum = window[j > PHASE] * taps[tap_of<UP, PHASE>(j)];
        UNROLL for (int k = 1; k < TAPS; k++) sum += window[k + (j > PHASE)] * taps[k * UP + tap_of<UP, PHASE>(j)];
        fine[j] = sum;
    }
}

INLINE V activate(V v, float slope, float limit) {
    v = larger(v, v * slope);
    return smaller(larger(v, V{} - limit), V{} + limit);
}

// `UP` rows of the raised rate out of rows of the source, along the columns.
template <int UP, int PHASE> void raise_rows(const Cell* const* rows, const float* taps, int64_t count, Cell* const* fine) {
    for (int64_t x = 0; x < count; x++) {
        V window[WINDOW], sums[UP];
        UNROLL for (int k = 0; k < WINDOW; k++) window[k] = rows[k][x].v;
        raise<UP, PHASE>(window, taps, sums);
        UNROLL for (int j = 0; j < UP; j++) fine[j][x].v = sums[j];
    }
}

// A row up, activated, and down again: target[i] is sample i - 5 of the result.
template <int UP, int PHASE>
void activate_row(const Cell* source, const Filtered& f, const float* up, const float* down, int64_t steps, Cell* target) {
    V sums[TAPS] = {};
    const float slope = f.slope, limit = f.limit;
#pragma GCC unroll 6
    for (int64_t s = 0; s < steps; s++) {
        V window[WINDOW], fine[UP];
        UNROLL for (int k = 0; k < WINDOW; k++) window[k] = source[s + k].v;
        raise<UP, PHASE>(window, up, fine);
        UNROLL for (int j = 0; j < UP; j += 2) {
            const V even = activate(fine[j], slope, limit), odd = activate(fine[j + 1], slope, limit);
            UNROLL for (int k = 0; k < TAPS; k++) sums[k] += even * down[DOWN - 2 - 2 * k];
            UNROLL for (int k = 0; k < TAPS; k++) sums[k] += odd * down[DOWN - 1 - 2 * k];
            target[s * (UP / 2) + j / 2].v = sums[0];
            UNROLL for (int k = 0; k + 1 < TAPS; k++) sums[k] = sums[k + 1];
            sums[TAPS - 1] = V{};
        }
    }
}

// A row up and activated.
template <int UP, int PHASE>
void raise_row(const Cell* source, const Filtered& f, const float* up, int64_t steps, Cell* target) {
    const float slope = f.slope, limit = f.limit;
    for (int64_t s = 0; s < steps; s++) {
        V window[WINDOW], fine[UP];
        UNROLL for (int k = 0; k < WINDOW; k++) window[k] = source[s + k].v;
        raise<UP, PHASE>(window, up, fine);
        UNROLL for (int j = 0; j < UP; j++) target[s * UP + j].v = activate(fine[j], slope, limit);
    }
}

// One or two rows of the result out of 12 or 14, along the columns.
template <int COUNT> void lower_rows(const Cell* const* rows, const float* taps, int64_t count, Cell* const* out) {
    for (int64_t x = 0; x < count; x++) {
        V sums[COUNT];
        UNROLL for (int k = 0; k < DOWN + 2 * (COUNT - 1); k++) {
            const V v = rows[k][x].v;
            UNROLL for (int o = 0; o < COUNT; o++) {
                if (k == 2 * o) sums[o] = v * taps[0];
                if (k > 2 * o && k < 2 * o + DOWN) sums[o] += v * taps[k - 2 * o];
            }
        }
        UNROLL for (int o = 0; o < COUNT; o++) out[o][x].v = sums[o];
    }
}

// A row of the result out of 12 activated ones, by a filter that is symmetric along both axes.
void fold_row(const Cell* const* rows, const float* taps, int64_t count, Cell* out) {
    for (int k = 0; k < TAPS; k++) {
        const Cell *upper = rows[k], *lower = rows[DOWN - 1 - k];
        const float* t = taps + k * DOWN;
        V window[DOWN];
        UNROLL for (int j = 0; j < DOWN - 2; j++) window[j] = upper[j].v + lower[j].v;
#pragma GCC unroll 6
        for (int64_t x = 0; x < count; x++) {
            UNROLL for (int j = DOWN - 2; j < DOWN; j++) window[j] = upper[2 * x + j].v + lower[2 * x + j].v;
            V sum = k ? out[x].v : V{};
            UNROLL for (int j = 0; j < TAPS; j++) sum += (window[j] + window[DOWN - 1 - j]) * t[j];
            out[x].v = sum;
            UNROLL for (int j = 0; j + 2 < DOWN; j++) window[j] = window[j + 2];
        }
    }
}

template <class T> INLINE V load_part(const T* p, int64_t count) {
    if (count == LANES) return load(p, (V*)0);
    float values[LANES] = {};
    for (int64_t i = 0; i < count; i++) values[i] = load(p + i, (float*)0);
    return load(values, (V*)0);
}

template <class T> INLINE void store_part(T* p, V v, int64_t count) {
    if (count == LANES) return store(p, v);
    for (int64_t i = 0; i < count; i++) store(p + i, (float)v[i]);
}

template <int UP> struct Rows {  // the functions above by the phase
    decltype(&raise_rows<UP, 0>) along_columns;
    decltype(&activate_row<UP, 0>) activated;
    decltype(&raise_row<UP, 0>) raised;
};

template <int UP> Rows<UP> rows_of(int phase) {
    static const Rows<UP> all[] = {
        {raise_rows<UP, 0>, activate_row<UP, 0>, raise_row<UP, 0>},
        {raise_rows<UP, 1>, activate_row<UP, 1>, raise_row<UP, 1>},
        {raise_rows<UP, 2 % UP>, activate_row<UP, 2 % UP>, raise_row<UP, 2 % UP>},
        {raise_rows<UP, 3 % UP>, activate_row<UP, 3 % UP>, raise_row<UP, 3 % UP>},
    };
    return all[phase];
}

// Memory of one thread, for a strip.
struct Memory {
    int64_t columns, steps, samples, kept_columns;  // of the result; of a row's scan; of the source; of what is kept
    std::vector<Cell> source, raised, kept, result;

    Memory(const Filtered& f, int64_t columns_) : columns(columns_) {
        steps = (2 * (columns + TAPS - 1) + f.up - 1) / f.up;
        samples = steps + TAPS;
        kept_columns = f.column_taps ? steps * f.up / 2 : steps * f.up;
        source.resize(BLOCK * SAMPLES * samples), raised.resize(f.up * samples);
        kept.resize(BLOCK * ROWS * kept_columns), result.resize(BLOCK * 2 * columns);
    }

    Cell* source_row(int v, int64_t row) { return &source[(v * SAMPLES + row % SAMPLES) * samples]; }
    Cell* kept_row(int v, int64_t row) { return &kept[(v * ROWS + row % ROWS) * kept_columns]; }
    Cell* result_row(int v, int o) { return &result[(v * 2 + o) * columns]; }
};

// Up to BLOCK vectors of channels of one strip.
template <class T, int UP> void strip(const Filtered& f, Memory& m, int64_t n, int64_t channel, int64_t begin) {
    const int64_t C = f.channels, H = f.in_height, W = f.in_width, columns = std::min(m.columns, f.out_width - begin);
    const T* source = (const T*)f.source + n * H * W * C + channel;
    T* target = (T*)f.target + n * f.out_height * f.out_width * C + channel;
    V scale[BLOCK], shift[BLOCK], next[BLOCK];
    int64_t lanes[BLOCK];
    int count = 0;
    for (; count < BLOCK && channel + count * LANES < C; count++) {
        const int64_t c = channel + count * LANES;
        lanes[count] = std::min<int64_t>(LANES, C - c);
        scale[count] = f.scale ? load_part(f.scale + n * C + c, lanes[count]) : V{} + 1;
        shift[count] = load_part(f.shift + c, lanes[count]);
        next[count] = f.next_scale ? load_part(f.next_scale + n * C + c, lanes[count]) : V{} + 1;
    }
    const bool whole = count == BLOCK && lanes[BLOCK - 1] == LANES;
    const int64_t row_phase = f.left - floor_div(f.left, UP) * UP, column_phase = f.above - floor_div(f.above, UP) * UP;
    const int64_t first = begin * 2 / UP - floor_div(f.left, UP), top = -floor_div(f.above, UP);  // samples of the source
    const int64_t from = std::min(std::max<int64_t>(-first, 0), m.samples), to = std::max(std::min(m.samples, W - first), from);
    const Rows<UP> along_row = rows_of<UP>(row_phase), along_column = rows_of<UP>(column_phase);
    int64_t filled = 0;  // rows of the source, from `top` on
    for (int64_t group = 0; 2 * group - 5 < f.out_height; group++) {  // of four rows at the raised rate
        const int64_t even = 2 * group - 5;  // rows of the result that are done then: this one and the next
        for (int64_t step = group * (4 / UP); step < (group + 1) * (4 / UP); step++) {
            for (; filled < step + WINDOW; filled++) {
                const bool inside = top + filled >= 0 && top + filled < H;
                Cell* row[BLOCK];
                for (int v = 0; v < count; v++) {
                    row[v] = m.source_row(v, filled);
                    for (int64_t x = 0; x < (inside ? from : m.samples); x++) row[v][x].v = V{};
                    for (int64_t x = inside ? to : m.samples; x < m.samples; x++) row[v][x].v = V{};
                }
                if (!inside) continue;
                const T* p = source + ((top + filled) * W + first) * C;
                if (whole) {
                    for (int64_t x = from; x < to; x++)
                        UNROLL for (int v = 0; v < BLOCK; v++) row[v][x].v = load(p + x * C + v * LANES, (V*)0) * scale[v] + shift[v];
                } else {
                    for (int64_t x = from; x < to; x++)
                        for (int v = 0; v < count; v++) row[v][x].v = load_part(p + x * C + v * LANES, lanes[v]) * scale[v] + shift[v];
                }
            }
            for (int v = 0; v < count; v++) {
                const Cell* window[WINDOW];
                Cell* raised[UP];
                for (int k = 0; k < WINDOW; k++) window[k] = m.source_row(v, step + k);
                for (int j = 0; j < UP; j++) raised[j] = &m.raised[j * m.samples];
                along_column.along_columns(window, f.up_taps, m.samples, raised);
                for (int j = 0; j < UP; j++) {
                    Cell* row = m.kept_row(v, step * UP + j);
                    if (f.column_taps) along_row.activated(raised[j], f, f.up_taps, f.down_taps, m.steps, row);
                    else along_row.raised(raised[j], f, f.up_taps, m.steps, row);
                }
            }
        }
        if (even + 1 < 0) continue;
        for (int v = 0; v < count; v++) {
            const Cell* rows[DOWN + 2];
            for (int k = 0; k < DOWN + 2; k++)
                rows[k] = m.kept_row(v, 4 * group - 10 + k + ROWS) + (f.column_taps ? TAPS - 1 : 0);
            Cell* out[2] = {m.result_row(v, 0), m.result_row(v, 1)};
            if (f.column_taps) lower_rows<2>(rows, f.column_taps, columns, out);
            else for (int o = 0; o < 2; o++)
                if (even + o >= 0 && even + o < f.out_height) fold_row(rows + 2 * o, f.down_taps, columns, out[o]);
        }
        for (int o = 0; o < 2; o++) {
            if (even + o < 0 || even + o >= f.out_height) continue;
            T* p = target + ((even + o) * f.out_width + begin) * C;
            if (whole) {
                for (int64_t x = 0; x < columns; x++)
                    UNROLL for (int v = 0; v < BLOCK; v++) store(p + x * C + v * LANES, m.result_row(v, o)[x].v * next[v]);
            } else {
                for (int64_t x = 0; x < columns; x++)
                    for (int v = 0; v < count; v++) store_part(p + x * C + v * LANES, m.result_row(v, o)[x].v * next[v], lanes[v]);
            }
        }
    }
}

template <class T> void work(const Filtered& f, int64_t width, int64_t begin, int64_t end) {
    const int64_t strips = (f.out_width + width - 1) / width, blocks = (f.channels + BLOCK * LANES - 1) / (BLOCK * LANES);
    Memory memory(f, std::min(width, f.out_width));
    for (int64_t index = begin; index < end; index++) {
        const int64_t n = index / (strips * blocks), column = index / blocks % strips * width, channel = index % blocks * BLOCK * LANES;
        if (f.up == 2) strip<T, 2>(f, memory, n, channel, column);
        else strip<T, 4>(f, memory, n, channel, column);
    }
}

template <class T> void run(const Filtered& f) {
    int64_t width = f.strip;
    if (width == 0) {
        const int64_t column = BLOCK * sizeof(Cell) * (2 * SAMPLES / f.up + ROWS * (f.column_taps ? 1 : 2));
        const int64_t count = (f.out_width * column + CACHE - 1) / CACHE;
        width = (f.out_width + count - 1) / count;
        width += width % 2;
    }
    const int64_t strips = (f.out_width + width - 1) / width, blocks = (f.channels + BLOCK * LANES - 1) / (BLOCK * LANES);
    const int64_t count = f.samples * strips * blocks, threads = std::max<int64_t>(1, std::min(f.threads, count));
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; i++)
        others.emplace_back([&, i] { work<T>(f, width, count * i / threads, count * (i + 1) / threads); });
    work<T>(f, width, 0, count / threads);
    for (auto& other : others) other.join();
}

}  // namespace

extern "C" void filtered_activation_float(const Filtered* filtered) { run<float>(*filtered); }
extern "C" void filtered_activation_bfloat16(const Filtered* filtered) { run<bfloat>(*filtered); }
