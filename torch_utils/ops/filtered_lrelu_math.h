// The stages of filtered_lrelu as functions of a block's and a thread's number. A block makes a square tile of the result of one
// plane; the fine image exists in shared memory only. Between two stages lies a barrier.
#pragma once

#include "element_types.h"
#include "filtered_lrelu.h"

const int FILTERED_LRELU_COLUMNS = 32, FILTERED_LRELU_ROWS = 8;  // threads of a block
const int FILTERED_LRELU_MOST_TAPS = 64;

// Sizes of a block's tiles, all square: of the result, the fine image, and of what is upsampled (the larger one).
struct FilteredLreluTiles {
    int result, fine, source;

    ON_BOTH_SIDES FilteredLreluTiles(const FilteredLreluArguments& p, int side) : result(side) {
        fine = (side - 1) * p.down + p.down_filter.count;
        source = (fine + p.up_filter.count - 2) / p.up + 2;
        const int other = p.z.values ? (fine + p.z_filter.count - 2) / p.z_up + 2 : 0;
        source = source > other ? source : other;
    }
    // Numbers in shared memory: the source, its rows upsampled, the fine image. Its rows downsampled take the place of the second.
    ON_BOTH_SIDES int rows_at() const { return source * source; }
    ON_BOTH_SIDES int fine_at() const { return rows_at() + fine * (source > result ? source : result); }
    ON_BOTH_SIDES int total() const { return fine_at() + fine * fine; }
};

template <class Element>
struct FilteredLreluStages {
    typedef typename ScalarOf<Element>::type S;

    const FilteredLreluArguments& p;
    FilteredLreluTiles tiles;
    S *source, *rows, *fine;
    int left, top, c, n;         // of the tile of the result
    int column, row;             // of the thread

    ON_BOTH_SIDES FilteredLreluStages(const FilteredLreluArguments& p_, int side, void* shared, int tile, int plane, int thread)
        : p(p_), tiles(p_, side) {
        source = static_cast<S*>(shared), rows = source + tiles.rows_at(), fine = source + tiles.fine_at();
        const int across = (p.y.width + side - 1) / side;
        left = tile % across * side, top = tile / across * side;
        c = plane % p.channels, n = plane / p.channels;
        column = thread % FILTERED_LRELU_COLUMNS, row = thread / FILTERED_LRELU_COLUMNS;
    }

    static ON_BOTH_SIDES int ceiling(int a, int b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }
    ON_BOTH_SIDES int fine_left() const { return left * p.down - p.down_pad_x; }
    ON_BOTH_SIDES int fine_top() const { return top * p.down - p.down_pad_y; }

    // Read what the fine tile is made of; places outside are 0, and have no bias.
    ON_BOTH_SIDES void load(const ImageStack& image, const void* bias, int up, int pad_x, int pad_y) {
        const int first_x = ceiling(fine_left() - pad_x, up), first_y = ceiling(fine_top() - pad_y, up);
        const Element* plane = static_cast<const Element*>(image.values) + n * image.stride_n + c * image.stride_c;
        const S added = bias ? S(to_scalar(static_cast<const Element*>(bias)[c])) : S(0);
        for (int i = row; i < tiles.source; i += FILTERED_LRELU_ROWS)
            for (int j = column; j < tiles.source; j += FILTERED_LRELU_COLUMNS) {
                const int x = first_x + j, y = first_y + i;
                const bool inside = x >= 0 && x < image.width && y >= 0 && y < image.height;
                source[i * tiles.source + j] =
                    inside ? S(to_scalar(plane[y * image.stride_y + x * image.stride_x])) + added : S(0);
            }
    }

    // First tap of a fine place, and the place in the tile of the source that it meets.
    template <int UP> static ON_BOTH_SIDES void meet(int place, int first, int& tap, int& at) {
        const int whole = ceiling(place, UP);
        tap = whole * UP - place, at = whole - first;
    }

    template <int UP> ON_BOTH_SIDES void upsample_rows(const FilterTaps& filter, int pad_x) {
        const int origin = fine_left() - pad_x, first = ceiling(origin, UP);
        for (int j = column; j < tiles.fine; j += FILTERED_LRELU_COLUMNS) {
            int begin, at;
            meet<UP>(origin + j, first, begin, at);
            for (int i = row; i < tiles.source; i += FILTERED_LRELU_ROWS) {
                const S* from = source + i * tiles.source + at;
                S sum = S(0);
                for (int tap = begin; tap < filter.count; tap += UP) sum += S(filter.taps[tap]) * *from++;
                rows[i * tiles.fine + j] = sum;
            }
        }
    }

    template <int UP> ON_BOTH_SIDES S upsampled(const FilterTaps& filter, int i, int j, int pad_x, int pad_y) const {
        const int origin_y = fine_top() - pad_y;
        int begin, at;
        meet<UP>(origin_y + i, ceiling(origin_y, UP), begin, at);
        S sum = S(0);
        if (filter.separable) {
            const S* from = rows + at * tiles.fine + j;
            for (int tap = begin; tap < filter.count; tap += UP, from += tiles.fine) sum += S(filter.taps[tap]) * *from;
            return sum;
        }
        const int origin_x = fine_left() - pad_x;
        int begin_x, at_x;
        meet<UP>(origin_x + j, ceiling(origin_x, UP), begin_x, at_x);
        for (int tap = begin; tap < filter.count; tap += UP, ++at) {
            const S* from = source + at * tiles.source + at_x;
            for (int tap_x = begin_x; tap_x < filter.count; tap_x += UP) sum += S(filter.taps[tap * filter.count + tap_x]) * *from++;
        }
        return sum;
    }

    // The function of the fine image, or its slope there; outside of the fine image there is nothing.
    template <int UP> ON_BOTH_SIDES void activate() {
        const S gain = S(p.gain), slope = S(p.slope), limit = S(p.clamp), scale = S(p.up_scale);
        for (int i = row; i < tiles.fine; i += FILTERED_LRELU_ROWS)
            for (int j = column; j < tiles.fine; j += FILTERED_LRELU_COLUMNS) {
                const int x = fine_left() + j, y = fine_top() + i;
                S result = S(0);
                if (x >= 0 && x < p.fine_width && y >= 0 && y < p.fine_height) {
                    const S u = scale * upsampled<UP>(p.up_filter, i, j, p.up_pad_x, p.up_pad_y);
                    const S factor = u > S(0) ? gain : gain * slope;
                    const S value = factor * u;
                    const bool within = limit < S(0) || (value < limit && value > -limit);
                    if (p.z.values) result = within ? factor : S(0);
                    else result = within ? value : value > S(0) ? limit : value < S(0) ? -limit : value;
                }
                fine[i * tiles.fine + j] = result;
            }
    }

    template <int UP> ON_BOTH_SIDES void multiply() {
        for (int i = row; i < tiles.fine; i += FILTERED_LRELU_ROWS)
            for (int j = column; j < tiles.fine; j += FILTERED_LRELU_COLUMNS)
                fine[i * tiles.fine + j] *= upsampled<UP>(p.z_filter, i, j, p.z_pad_x, p.z_pad_y);
    }

    template <int DOWN> ON_BOTH_SIDES void downsample_rows() {
        for (int j = column; j < tiles.result; j += FILTERED_LRELU_COLUMNS)
            for (int i = row; i < tiles.fine; i += FILTERED_LRELU_ROWS) {
                const S* from = fine + i * tiles.fine + j * DOWN;
                S sum = S(0);
                for (int tap = 0; tap < p.down_filter.count; ++tap) sum += S(p.down_filter.taps[tap]) * from[tap];
                rows[i * tiles.result + j] = sum;
            }
    }

    template <int DOWN> ON_BOTH_SIDES void store() {
        Element* plane = static_cast<Element*>(const_cast<void*>(p.y.values)) + n * p.y.stride_n + c * p.y.stride_c;
        const int taps = p.down_filter.count;
        for (int i = row; i < tiles.result; i += FILTERED_LRELU_ROWS)
            for (int j = column; j < tiles.result; j += FILTERED_LRELU_COLUMNS) {
                if (left + j >= p.y.width || top + i >= p.y.height) continue;
                S sum = S(0);
                if (p.down_filter.separable) {
                    const S* from = rows + i * DOWN * tiles.result + j;
                    for (int tap = 0; tap < taps; ++tap) sum += S(p.down_filter.taps[tap]) * from[tap * tiles.result];
                } else {
                    for (int tap = 0; tap < taps; ++tap)
                        for (int tap_x = 0; tap_x < taps; ++tap_x)
                            sum += S(p.down_filter.taps[tap * taps + tap_x]) * fine[(i * DOWN + tap) * tiles.fine + j * DOWN + tap_x];
                }
                from_scalar(sum * S(p.scale), plane + (top + i) * p.y.stride_y + (left + j) * p.y.stride_x);
            }
    }

    // The stages in their order. Returns whether there is one of this number.
    template <int UP, int Z_UP, int DOWN> ON_BOTH_SIDES bool run(int stage) {
        switch (stage) {
            case 0: load(p.x, p.b, UP, p.up_pad_x, p.up_pad_y); return true;
            case 1: if (p.up_filter.separable) upsample_rows<UP>(p.up_filter, p.up_pad_x); return true;
            case 2: activate<UP>(); return true;
            case 3: if (p.z.values) load(p.z, nullptr, Z_UP, p.z_pad_x, p.z_pad_y); return true;
            case 4: if (p.z.values && p.z_filter.separable) upsample_rows<Z_UP>(p.z_filter, p.z_pad_x); return true;
            case 5: if (p.z.values) multiply<Z_UP>(); return true;
            case 6: if (p.down_filter.separable) downsample_rows<DOWN>(); return true;
            case 7: store<DOWN>(); return true;
            default: return false;
        }
    }
};
