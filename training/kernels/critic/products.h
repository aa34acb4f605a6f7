// Products of large matrices, whose rows are found through pointers, so that frames out of footage need not be copied together.
#pragma once

#include <algorithm>
#include <system_error>
#include <thread>

#include "../lanes.h"

namespace {

constexpr int DEPTH = 384;   // of a block of a product, and
constexpr int WIDEST = 128;  // its columns (one panel stays in the second cache), and
constexpr int HEIGHT = 96;   // the rows that go through it together

// Calls work(first, end) for parts of 0 .. count, cut at multiples of `grain`; who gets which part changes no number.
template <class Work> void share(int count, int grain, int threads, const Work& work) {
    const int grains = (count + grain - 1) / grain;
    threads = std::max(1, std::min(threads, grains));
    std::vector<std::thread> others;
    for (int k = 1; k < threads; k++) {
        const int first = (int)((long)grains * k / threads) * grain, end = (int)((long)grains * (k + 1) / threads) * grain;
        try {
            others.emplace_back(work, first, std::min(end, count));
        } catch (const std::system_error&) {  // no more threads for this process
            work(first, std::min(end, count));
        }
    }
    work(0, std::min(count, grains / threads * grain));
    for (std::thread& other : others) other.join();
}

template <class T> struct StoreOrAdd {
    T* to; int stride; bool add;
    INLINE void operator()(int i, int j, typename Lanes<T>::V v) const {
        T* place = to + (size_t)i * stride + j;
        store(place, add ? load(place) + v : v);
    }
};

// out [rows, columns] = a B; row i of a is a[i], B is [depth, columns], or with `turned` [columns, depth]. With `add` on top of what is there.
template <class T>
void multiply(int rows, int depth, int columns, const T* const* a, const T* b, bool turned, T* out, bool add, int threads) {
    const auto part = [=](int first, int end) {
        std::vector<T> panel((size_t)DEPTH * WIDEST), sums((size_t)std::max(end - first, 0) * WIDEST);
        for (int j = 0; j < columns; j += WIDEST) {
            const int count = std::min(WIDEST, columns - j), wide = round_up(count, Lanes<T>::width);
            for (int k = 0; k < depth; k += DEPTH) {
                const int deep = std::min(DEPTH, depth - k);
                if (wide != count) std::fill(panel.begin(), panel.end(), T(0));
                if (!turned) {
                    for (int q = 0; q < deep; q++) memcpy(&panel[(size_t)q * wide], b + (size_t)(k + q) * columns + j, count * sizeof(T));
                } else {
                    for (int p = 0; p < count; p += 16) {  // a cache line of the panel at a time
                        const int last = std::min(p + 16, count);
                        for (int q = 0; q < deep; q++)
                            for (int r = p; r < last; r++) panel[(size_t)q * wide + r] = b[(size_t)(j + r) * depth + k + q];
                    }
                }
                for (int i = first; i < end; i += HEIGHT) {
                    Segment<T> segment = {a + i, k, panel.data(), wide, deep};
                    product<T, 1>(std::min(HEIGHT, end - i), wide, &segment,
                                  StoreOrAdd<T>{&sums[(size_t)(i - first) * wide], wide, k > 0});
                }
            }
            for (int i = first; i < end; i++) {
                T *to = out + (size_t)i * columns + j, *from = &sums[(size_t)(i - first) * wide];
                for (int c = 0; c < count; c++) to[c] = add ? to[c] + from[c] : from[c];
            }
        }
    };
    share(rows, HEIGHT, threads, part);
}

constexpr int TILE = MANY_REGISTERS ? 8 : 4;  // rows of a tile of `multiply_columns`, which has 3 vectors in each

struct Nothing {
    INLINE void operator()() const {}
};

// out [TILE, 3 vectors] = a^T b for a [count, TILE] and b [count, 3 vectors]; meanwhile() is called as often as there are rows.
template <class T, class Meanwhile = Nothing>
void outer_panel(int count, const T* a, const T* b, T* out, int stride, bool add, Meanwhile&& meanwhile = Meanwhile()) {
    VECTORS(T);
    V sum[TILE][3] = {};
    for (int k = 0; k < count; k++, a += TILE, b += 3 * width) {
        meanwhile();
        V column[3];
        UNROLL for (int c = 0; c < 3; c++) column[c] = load(b + c * width);
        UNROLL for (int r = 0; r < TILE; r++) {
            const T factor = a[r];
            UNROLL for (int c = 0; c < 3; c++) sum[r][c] += factor * column[c];
        }
    }
    UNROLL for (int r = 0; r < TILE; r++)
        UNROLL for (int c = 0; c < 3; c++) {
            T* place = out + (size_t)r * stride + c * width;
            store(place, add ? load(place) + sum[r][c] : sum[r][c]);
        }
}

// The left side of `outer_panel`, [tiles, depth, TILE] out of a [depth, rows], rows `stride` apart.
template <class T> void put_tiles(int depth, int rows, const T* a, int64_t stride, T* to) {
    constexpr int together = 16;  // tiles
    for (int first = 0; first < rows; first += together * TILE)
        for (int k = 0; k < depth; k++)
            for (int i = first; i < std::min(first + together * TILE, rows); i += TILE) {
                T* tile = to + (size_t)i * depth + (size_t)k * TILE;
                const int count = std::min(TILE, rows - i);
                if (count == TILE) {
                    memcpy(tile, a + k * stride + i, TILE * sizeof(T));
                    continue;
                }
                for (int r = 0; r < TILE; r++) tile[r] = r < count ? a[k * stride + i + r] : T(0);
            }
}

// out [rows, columns] = sum over k of (a_k)^T b[k]; a is [depth, rows]. With `add` on top of what is there.
template <class T>
void multiply_columns(int rows, int depth, int columns, const T* a, const T* const* b, T* out, bool add, int threads) {
    constexpr int panel = 3 * Lanes<T>::width, panels = 4;
    const int tiles = (rows + TILE - 1) / TILE;
    std::vector<T> turned((size_t)tiles * TILE * depth);  // [tiles, depth, TILE]
    put_tiles(depth, rows, a, rows, turned.data());
    const T* left = turned.data();
    const auto part = [=](int first, int end) {
        std::vector<T> block((size_t)DEPTH * panel * panels), edge((size_t)TILE * panel);
        for (int j = first; j < end; j += panel * panels) {
            const int here = std::min(panel * panels, end - j), last = std::max(depth, 1);
            for (int k = 0; k < last; k += DEPTH) {
                const int deep = std::min(DEPTH, depth - k);
                for (int p = 0; p * panel < here; p++) {
                    const int count = std::min(panel, here - p * panel);
                    T* to = &block[(size_t)p * DEPTH * panel];
                    for (int q = 0; q < deep; q++, to += panel) {
                        memcpy(to, b[k + q] + j + p * panel, count * sizeof(T));
                        for (int r = count; r < panel; r++) to[r] = 0;
                    }
                }
                for (int tile = 0; tile < tiles; tile++)
                    for (int p = 0; p * panel < here; p++) {
                        const T *from = left + ((size_t)tile * depth + k) * TILE, *with = &block[(size_t)p * DEPTH * panel];
                        const int column = j + p * panel, wide = std::min(panel, here - p * panel), high = std::min(TILE, rows - tile * TILE);
                        T* to = out + (size_t)tile * TILE * columns + column;
                        const bool more = add || k > 0;
                        if (wide == panel && high == TILE) {
                            outer_panel(deep, from, with, to, columns, more);
                            continue;
                        }
                        outer_panel(deep, from, with, edge.data(), panel, false);
                        for (int r = 0; r < high; r++)
                            for (int c = 0; c < wide; c++)
                                to[(size_t)r * columns + c] = edge[r * panel + c] + (more ? to[(size_t)r * columns + c] : T(0));
                    }
            }
        }
    };
    share(columns, panel * panels, threads, part);
}

}  // namespace
