// A wide first layer on frames and their motion, W [y_k, (y_k - y_{k-1}) u] with W = [W_1, W_2], in fewer products than there are.
//
// With V := W_2 u a sum is W_1 y_k + V (y_k - y_{k-1}), a filter of two taps over time whose taps are matrices. Where three frames
// follow each other, four products with half of the columns give what six would (minimal filtering: Winograd, 1980; the points are
// 0, 1, -1 and infinity), with the frame before them as y_0:
//
//     p = V (y_2 - y_0)      q = W_1 (y_1 + y_2) / 2      r = (V + W_1 / 2) (y_2 - y_1)      s = (W_1 + V) (y_3 - y_1)
//     sums  p + q - r,   q + r,   q - r + s
//
// and of two, three products give what four would: W_1 y_1, V (y_1 - y_0), (W_1 + V) (y_2 - y_1). The gradient for the weights is
// the same turned around, with the same number of products. All factors are 1 or 1/2, so rounding stays what it was.
#pragma once

#include "products.h"

namespace {

constexpr int DEEP = 384;   // numbers of a code at a time: weights of that many stay in the second cache
constexpr int BATCH = 24;   // rows of a plan at a time, and
constexpr int AHEAD = 8;    // those that are fetched beforehand
constexpr int STRETCH = 48; // rows with one weight after which those with the next one come

// By what a row is multiplied, and where it goes.
enum Weights { FRAME, MOTION, BOTH, MIDDLE, KINDS };  // W_1, V, W_1 + V, V + W_1 / 2
enum Begin { FIRST = -1, ENTERED = -2, LEFT = -3 };   // in the place of the frame before

struct Stretch { int kind, begin, end; };  // rows of a plan with one weight

struct FramePlan {
    struct Row { int64_t frame, other; };  // the frame alone (other < 0); FRAME: mean of both; else: the frame less the other one
    struct Item { int row[3]; float sign[3]; bool still, moving; };  // and whether it has W_1, and V, of what all frames have
    std::vector<Row> rows;    // in the order of their weights
    int first[KINDS + 1];     // row of each of them
    std::vector<Item> items;  // each different sum once
    std::vector<int> place;   // of each output among them

    // Output i is W_1 y_f + V (y_f - y_b) for f = frames[i], b = before[i], or with b FIRST: W_1 y_f, ENTERED: (W_1 + V) y_f,
    // LEFT: V y_f.
    FramePlan(int count, const int64_t* frames, const int64_t* before) : place(count) {
        struct Asked { int64_t before, frame; int output; };
        std::vector<Asked> asked(count);
        for (int i = 0; i < count; i++) asked[i] = {before[i], frames[i], i};
        std::sort(asked.begin(), asked.end(), [](const Asked& a, const Asked& b) {
            return a.before != b.before ? a.before < b.before : a.frame != b.frame ? a.frame < b.frame : a.output < b.output;
        });
        std::vector<Asked> distinct;
        for (const Asked& each : asked) {
            if (distinct.empty() || distinct.back().before != each.before || distinct.back().frame != each.frame) distinct.push_back(each);
            place[each.output] = (int)distinct.size() - 1;
        }
        items.assign(distinct.size(), Item{{-1, -1, -1}, {0, 0, 0}, true, false});
        std::vector<Row> lists[KINDS];
        const auto add = [&](Weights kind, int64_t frame, int64_t other = -1) {
            lists[kind].push_back({frame, other});
            return (int)((lists[kind].size() - 1) * KINDS + kind);  // until all are there
        };
        const auto next_of = [&](int item) {  // the motion that goes on from here as it came, forwards or backwards
            const int64_t from = distinct[item].frame, to = 2 * from - distinct[item].before;
            const auto found = std::lower_bound(distinct.begin(), distinct.end(), from, [to](const Asked& a, int64_t before) {
                return a.before != before ? a.before < before : a.frame < to;
            });
            return found != distinct.end() && found->before == from && found->frame == to ? (int)(found - distinct.begin()) : -1;
        };
        const int total = (int)distinct.size();
        std::vector<int> next(total, -1);
        std::vector<char> follows(total, 0);
        for (int item = 0; item < total; item++) {
            const Asked& each = distinct[item];
            if (each.before < 0) {
                const Weights kind = each.before == FIRST ? FRAME : each.before == ENTERED ? BOTH : MOTION;
                items[item] = {{add(kind, each.frame), -1, -1}, {1, 0, 0}, kind != MOTION, kind != FRAME};
            } else if (each.before != each.frame) {
                next[item] = next_of(item);
                if (next[item] >= 0) follows[next[item]] = 1;
            }
        }
        for (int begin = 0; begin < total; begin++) {
            if (distinct[begin].before < 0 || follows[begin]) continue;
            for (int item = begin; item >= 0;) {  // three of a run at a time
                const int second = next[item], third = second < 0 ? -1 : next[second];
                const int64_t y0 = distinct[item].before, y1 = distinct[item].frame;
                if (third >= 0) {
                    const int64_t y2 = distinct[second].frame, y3 = distinct[third].frame;
                    const int p = add(MOTION, y2, y0), q = add(FRAME, y1, y2), r = add(MIDDLE, y2, y1), s = add(BOTH, y3, y1);
                    items[item] = {{p, q, r}, {1, 1, -1}, true, false};
                    items[second] = {{q, r, -1}, {1, 1, 0}, true, false};
                    items[third] = {{q, r, s}, {1, -1, 1}, true, false};
                    item = next[third];
                    continue;
                }
                const int p = add(FRAME, y1), q = add(MOTION, y1, y0);
                items[item] = {{p, q, -1}, {1, 1, 0}, true, false};
                if (second >= 0) items[second] = {{p, add(BOTH, distinct[second].frame, y1), -1}, {1, 1, 0}, true, false};
                break;
            }
        }
        first[0] = 0;
        for (int kind = 0; kind < KINDS; kind++) {
            first[kind + 1] = first[kind] + (int)lists[kind].size();
            rows.insert(rows.end(), lists[kind].begin(), lists[kind].end());
        }
        for (Item& item : items)
            for (int& row : item.row)
                if (row >= 0) row = first[row % KINDS] + row / KINDS;
    }

    // All rows in stretches of at most so many, those of one time next to each other whatever their weights are: they are made of
    // the same frames, which come from memory once then.
    std::vector<Stretch> stretches(int most) const {
        int longest = 0;
        for (int kind = 0; kind < KINDS; kind++) longest = std::max(longest, first[kind + 1] - first[kind]);
        const int times = (longest + most - 1) / most;
        std::vector<Stretch> found;
        for (int time = 0; time < times; time++)
            for (int kind = 0; kind < KINDS; kind++) {
                const int64_t rows = first[kind + 1] - first[kind];
                const int begin = first[kind] + (int)(rows * time / times), end = first[kind] + (int)(rows * (time + 1) / times);
                if (begin < end) found.push_back({kind, begin, end});
            }
        return found;
    }
};

template <class T> struct Source {  // frames [.., size]
    const T* frames; int64_t size;
    const T* at(int64_t frame, int64_t k) const { return frames + frame * size + k; }
};

// Brings numbers k .. k + count of rows of a plan nearer, a cache line at a call: frames lie so far from each other that the
// processor does not guess where the next one is.
template <class T> struct Fetch {
    std::vector<const char*> places;
    int lines = 0, line = 0;
    size_t next = 0;
    void of(const FramePlan& plan, int begin, int end, const Source<T>& source, int64_t k, int64_t count) {
        places.clear();
        line = 0, next = 0, lines = (int)((count * sizeof(T) + 63) / 64);
        for (int i = begin; count > 0 && i < end; i++) {
            places.push_back((const char*)source.at(plan.rows[i].frame, k));
            if (plan.rows[i].other >= 0) places.push_back((const char*)source.at(plan.rows[i].other, k));
        }
    }
    INLINE void operator()() {
        if (next >= places.size()) return;
        __builtin_prefetch(places[next] + (line << 6), 0, 2);
        if (++line == lines) line = 0, next++;
    }
};

// Numbers k .. k + count of row i of the plan, in pieces that lie `distance` apart, and the same of a later row on their way: frames
// lie so far from each other that the processor does not guess where the next one is.
template <class T>
INLINE void put_row(const FramePlan& plan, int i, bool mean, const Source<T>& source, int64_t k, int count, T* to, int piece, int64_t distance) {
    VECTORS(T);
    const FramePlan::Row &row = plan.rows[i], &later = plan.rows[std::min((size_t)i + AHEAD, plan.rows.size() - 1)];
    const T *a = source.at(row.frame, k), *b = source.at(std::max<int64_t>(row.other, 0), k), *later_a = source.at(later.frame, k);
    const T* later_b = later.other < 0 ? nullptr : source.at(later.other, k);
    for (int j = 0; j < count; j += 64 / (int)sizeof(T)) {
        __builtin_prefetch(later_a + j, 0, 2);
        if (later_b) __builtin_prefetch(later_b + j, 0, 2);
    }
    for (; count > 0; count -= piece, a += piece, b += piece, to += distance) {
        const int here = std::min(count, piece);
        int j = 0;
        if (row.other < 0) {
            for (; j + width <= here; j += width) store(to + j, load(a + j));
            for (; j < here; j++) to[j] = a[j];
        } else if (mean) {
            for (; j + width <= here; j += width) store(to + j, (load(a + j) + load(b + j)) * T(0.5));
            for (; j < here; j++) to[j] = (a[j] + b[j]) * T(0.5);
        } else {
            for (; j + width <= here; j += width) store(to + j, load(a + j) - load(b + j));
            for (; j < here; j++) to[j] = a[j] - b[j];
        }
    }
}

// to [count, wide] = (rows of `from`, `stride` apart, numbers k .. k + count)^T
template <class T> void turn(int rows, const T* from, int64_t stride, int64_t k, int count, T* to, int wide) {
    constexpr int most = 16;  // a cache line
    T square[most][most];     // by way of this, because rows may be as far apart as the places of a cache
    for (int p = 0; p < rows; p += most)
        for (int q = 0; q < count; q += most) {
            const int high = std::min(most, rows - p), deep = std::min(most, count - q);
            for (int r = 0; r < high; r++) {
                const T* row = from + (p + r) * stride + k + q;
                if (deep == most) memcpy(square[r], row, most * sizeof(T));
                else for (int c = 0; c < deep; c++) square[r][c] = row[c];
            }
            for (int c = 0; c < deep; c++) {
                T* column = to + (size_t)(q + c) * wide + p;
                if (high == most) for (int r = 0; r < most; r++) column[r] = square[r][c];
                else for (int r = 0; r < high; r++) column[r] = square[r][c];
            }
        }
}

// out [outputs, O] for weight [O, 2, size], or [O, size] without motion; unit [size] or null for 1; common
// [O, 2] (or [O]) is what all frames have besides, W_1 y and V y of it, or null.
template <class T>
void frame_sums(const FramePlan& plan, int O, bool motion, const T* weight, const T* unit, const Source<T>& source, const T* common,
                T* out, int threads) {
    const int wide = round_up(O, Lanes<T>::width), total = (int)plan.rows.size();
    const int64_t size = source.size, stride = motion ? 2 * size : size;
    std::vector<T> sums((size_t)total * wide);
    T* to = sums.data();
    const std::vector<Stretch> stretches = plan.stretches(STRETCH);
    const auto part = [=, &plan, &stretches](int begin, int end) {
        std::vector<T> panels((size_t)KINDS * DEEP * wide, 0), block((size_t)BATCH * (DEEP + 16));
        const T* pointers[BATCH];
        for (int i = 0; i < BATCH; i++) pointers[i] = &block[(size_t)i * (DEEP + 16)];
        std::vector<Stretch> batches;
        for (const Stretch& each : stretches)
            for (int i = std::max(begin, each.begin); i < std::min(end, each.end); i += BATCH)
                batches.push_back({each.kind, i, std::min({i + BATCH, end, each.end})});
        for (int64_t k = 0; k < size; k += DEEP) {
            const int deep = (int)std::min<int64_t>(DEEP, size - k);
            T *w = panels.data(), *v = w + (size_t)DEEP * wide, *both = v + (size_t)DEEP * wide, *middle = both + (size_t)DEEP * wide;
            turn(O, weight, stride, k, deep, w, wide);
            if (motion) turn(O, weight + size, stride, k, deep, v, wide);
            for (int q = 0; motion && q < deep; q++) {
                const T factor = unit ? unit[k + q] : T(1);
                for (int j = q * wide; j < (q + 1) * wide; j++) {
                    v[j] *= factor;
                    both[j] = w[j] + v[j];
                    middle[j] = v[j] + w[j] * T(0.5);
                }
            }
            for (const Stretch& batch : batches) {
                const int count = batch.end - batch.begin;
                for (int r = 0; r < count; r++)
                    put_row(plan, batch.begin + r, batch.kind == FRAME, source, k, deep, (T*)pointers[r], deep, 0);
                Segment<T> segment = {pointers, 0, panels.data() + (size_t)batch.kind * DEEP * wide, wide, deep};
                product<T, 1>(count, wide, &segment, StoreOrAdd<T>{to + (size_t)batch.begin * wide, wide, k > 0});
            }
        }
    };
    share(total, BATCH, threads, part);
    const int halves = motion ? 2 : 1;
    for (size_t i = 0; i < plan.place.size(); i++) {
        const FramePlan::Item& item = plan.items[plan.place[i]];
        T* of_output = out + i * O;
        for (int term = 0; term < 3 && item.row[term] >= 0; term++) {
            const T sign = item.sign[term], *from = to + (size_t)item.row[term] * wide;
            for (int j = 0; j < O; j++) of_output[j] = term ? of_output[j] + sign * from[j] : sign * from[j];
        }
        for (int half = 0; common && half < halves; half++)
            for (int j = 0; (half ? item.moving : item.still) && j < O; j++) of_output[j] += common[j * halves + half];
    }
}

// of_common [O, 2] (or [O]), the gradient for `common` of frame_sums.
template <class T> void common_gradient(const FramePlan& plan, int O, bool motion, const T* g, T* of_common) {
    const int halves = motion ? 2 : 1;
    std::fill_n(of_common, (size_t)O * halves, T(0));
    std::vector<T> sums((size_t)O * 2, 0);
    for (size_t i = 0; i < plan.place.size(); i++)
        for (int half = 0; half < halves; half++)
            for (int j = 0; (half ? plan.items[plan.place[i]].moving : plan.items[plan.place[i]].still) && j < O; j++) sums[(size_t)half * O + j] += g[i * O + j];
    for (int j = 0; j < O; j++)
        for (int half = 0; half < halves; half++) of_common[j * halves + half] = sums[(size_t)half * O + j];
}

// gram [O, O] = W W^T; and, where there are maps [size, R] and a bias [size] that make frames, inner [O, 2, R] = [W_1, V] maps and
// common [O, 2] = [W_1, V] bias.
template <class T>
void weight_products(int O, int64_t size, bool motion, const T* weight, const T* unit, T* gram, int R, const T* maps, const T* bias,
                     T* inner, T* common, int threads) {
    constexpr int grain = 2 * Lanes<T>::width;
    const int wide = round_up(O, grain), halves = motion ? 2 : 1, wide_R = round_up(R, Lanes<T>::width);
    const int64_t stride = halves * size;
    std::vector<T> sums((size_t)wide * wide, 0), through((size_t)O * halves * wide_R, 0), biased((size_t)O * halves, 0);
    T *of_gram = sums.data(), *of_maps = through.data(), *of_bias = biased.data();
    const auto part = [=](int begin, int end) {
        const int rows = end - begin;
        std::vector<T> panel((size_t)DEEP * wide, 0), block((size_t)rows * halves * DEEP), padded(maps && wide_R != R ? (size_t)DEEP * wide_R : 0, 0);
        std::vector<const T*> pointers((size_t)std::max(rows * halves, wide));
        for (int64_t k = 0; k < size; k += DEEP) {
            const int deep = (int)std::min<int64_t>(DEEP, size - k);
            for (int half = 0; gram && half < halves; half++) {
                turn(O, weight + half * size, stride, k, deep, panel.data(), wide);
                for (int i = begin; i < end; i += grain) {
                    const int count = std::min(grain, end - i);
                    for (int r = 0; r < count; r++) pointers[r] = weight + (i + r) * stride + half * size + k;
                    Segment<T> segment = {pointers.data(), 0, panel.data() + i, wide, deep};
                    product<T, 1>(count, wide - i, &segment, StoreOrAdd<T>{of_gram + (size_t)i * wide + i, wide, k > 0 || half});
                }
            }
            if (!maps) continue;
            for (int row = 0; row < rows * halves; row++) {
                const bool moved = row % halves;
                const T* from = weight + (begin + row / halves) * stride + (moved ? size : 0) + k;
                T *to = &block[(size_t)row * DEEP], sum = 0;
                pointers[row] = to;
                for (int q = 0; q < deep; q++) to[q] = moved && unit ? from[q] * unit[k + q] : from[q];
                typename Lanes<T>::V lanes = {};
                int q = 0;
                for (; q + Lanes<T>::width <= deep; q += Lanes<T>::width) lanes += load(to + q) * load(bias + k + q);
                for (; q < deep; q++) sum += to[q] * bias[k + q];
                of_bias[(size_t)begin * halves + row] += sum + total<T>(lanes);
            }
            for (int q = 0; wide_R != R && q < deep; q++) memcpy(&padded[(size_t)q * wide_R], maps + (k + q) * R, R * sizeof(T));
            Segment<T> segment = {pointers.data(), 0, wide_R != R ? padded.data() : maps + k * R, wide_R, deep};
            product<T, 1>(rows * halves, wide_R, &segment, StoreOrAdd<T>{of_maps + (size_t)begin * halves * wide_R, wide_R, k > 0});
        }
    };
    share(O, grain, threads, part);
    for (int i = 0; gram && i < O; i++)
        for (int j = 0; j < O; j++) gram[(size_t)i * O + j] = i / grain <= j / grain ? sums[(size_t)i * wide + j] : sums[(size_t)j * wide + i];
    for (int row = 0; maps && row < O * halves; row++) {
        memcpy(inner + (size_t)row * R, &through[(size_t)row * wide_R], R * sizeof(T));
        common[row] = biased[row];
    }
}

// What a weight gradient is a sum of, besides frames of a plan; null: nothing.
template <class T> struct Further {
    const T *outer, *weight;                // [O, O] and [O, 2, size]: outer W
    const T *inner, *maps, *common, *bias;  // [O, 2, R], [size, R]; [O, 2], [size]: inner maps^T + common bias^T
    int R;
};

// gradient [O, 2, size] (or [O, size]) for gradients g [outputs, O] of the sums; with `add` on top of what is there.
template <class T>
void frame_gradient(const FramePlan& plan, int O, bool motion, const T* unit, const Source<T>& source, const T* g,
                    const Further<T>& further, T* gradient, bool add, int threads) {
    constexpr int panel = 3 * Lanes<T>::width, panels = 4, deepest = 192;
    const int wide = round_up(O, TILE), total = (int)plan.rows.size(), tiles = wide / TILE, halves = motion ? 2 : 1;
    const int64_t size = source.size, stride = halves * size;
    std::vector<T> of_rows((size_t)total * O, 0);
    for (size_t i = 0; i < plan.place.size(); i++) {
        const FramePlan::Item& item = plan.items[plan.place[i]];
        for (int term = 0; term < 3 && item.row[term] >= 0; term++) {
            const T sign = item.sign[term];
            T* to = &of_rows[(size_t)item.row[term] * O];
            for (int j = 0; j < O; j++) to[j] += sign * g[i * O + j];
        }
    }
    struct Block { int kind, begin, count; std::vector<T> left; };  // rows of the plan with one weight
    std::vector<Block> blocks;
    for (const Stretch& stretch : plan.stretches(deepest)) {
        const int count = stretch.end - stretch.begin;
        blocks.push_back({stretch.kind, stretch.begin, count, std::vector<T>((size_t)wide * count)});
        put_tiles(count, O, &of_rows[(size_t)stretch.begin * O], O, blocks.back().left.data());
    }
    const int R = further.maps ? further.R : 0;
    std::vector<T> of_maps[2], of_weight;  // left sides
    for (int half = 0; R && half < halves; half++) {
        std::vector<T> turned((size_t)(R + 1) * O);
        turn(O, further.inner + (size_t)half * R, (int64_t)halves * R, 0, R, turned.data(), O);
        for (int o = 0; o < O; o++) turned[(size_t)R * O + o] = further.common[o * halves + half];
        of_maps[half].resize((size_t)wide * (R + 1));
        put_tiles(R + 1, O, turned.data(), O, of_maps[half].data());
    }
    if (further.outer) {
        std::vector<T> turned((size_t)O * O);
        turn(O, further.outer, O, 0, O, turned.data(), O);
        of_weight.resize((size_t)wide * O);
        put_tiles(O, O, turned.data(), O, of_weight.data());
    }
    const auto part = [&, O, size, stride, R](int64_t begin, int64_t end) {
        const int64_t most = std::max({std::min(total, deepest), R + 1, O});
        std::vector<T> right((size_t)panels * most * panel, 0), sums((size_t)(KINDS + 1) * wide * panel * panels);
        std::vector<char> there(KINDS + 1);
        int here = 0;
        Fetch<T> fetch;
        const auto multiply_by = [&](int kind, int depth, const T* left) {  // sums of a kind += left right
            T* to = &sums[(size_t)kind * wide * panel * panels];
            for (int p = 0; p * panel < here; p++)
                for (int tile = 0; tile < tiles; tile++)
                    outer_panel(depth, left + (size_t)tile * depth * TILE, &right[p * most * panel],
                                to + ((size_t)p * wide + tile * TILE) * panel, panel, there[kind], fetch);
            there[kind] = 1;
        };
        for (int64_t j = begin; j < end; j += panel * panels) {
            here = (int)std::min<int64_t>(panel * panels, end - j);
            std::fill(there.begin(), there.end(), 0);
            for (size_t number = 0; number < blocks.size(); number++) {
                const Block& block = blocks[number];
                for (int q = 0; q < block.count; q++)
                    put_row(plan, block.begin + q, block.kind == FRAME, source, j, here, &right[(size_t)q * panel], panel, most * panel);
                const Block& next = blocks[number + 1 < blocks.size() ? number + 1 : 0];
                const int64_t column = number + 1 < blocks.size() ? j : j + panel * panels;
                fetch.of(plan, next.begin, next.begin + next.count, source, column, std::min<int64_t>(panel * panels, end - column));
                multiply_by(block.kind, block.count, block.left.data());
            }
            if (R) {
                for (int p = 0; p * panel < here; p++) {
                    const int64_t first = j + p * panel;
                    const int count = std::min(panel, here - p * panel);
                    turn(count, further.maps + first * R, R, 0, R, &right[p * most * panel], panel);
                    for (int c = 0; c < count; c++) right[(p * most + R) * panel + c] = further.bias[first + c];
                }
                for (int half = 0; half < halves; half++) multiply_by(half ? MOTION : FRAME, R + 1, of_maps[half].data());
            }
            for (int half = 0; further.outer && half < halves; half++) {
                for (int q = 0; q < O; q++)
                    for (int p = 0; p * panel < here; p++)
                        memcpy(&right[(p * most + q) * panel], further.weight + q * stride + half * size + j + p * panel,
                               std::min(panel, here - p * panel) * sizeof(T));
                multiply_by(half ? KINDS : FRAME, O, of_weight.data());
            }
            for (int kind = 0; kind <= KINDS; kind++)
                if (!there[kind]) std::fill_n(&sums[(size_t)kind * wide * panel * panels], (size_t)wide * panel * panels, T(0));
            for (int p = 0; p * panel < here; p++)
                for (int o = 0; o < O; o++) {
                    const int64_t first = j + p * panel;
                    const int count = std::min(panel, here - p * panel);
                    const size_t row = ((size_t)p * wide + o) * panel, next = (size_t)wide * panel * panels;
                    const T *f = &sums[row], *m = f + next, *b = m + next, *h = b + next, *w = h + next;
                    T *to = gradient + o * stride + first, *of_motion = to + size;
                    for (int c = 0; c < count; c++) {
                        const T still = f[c] + b[c] + h[c] * T(0.5), moved = m[c] + b[c] + h[c];
                        to[c] = add ? to[c] + still : still;
                        if (!motion) continue;
                        const T value = moved * (unit ? unit[first + c] : T(1)) + w[c];
                        of_motion[c] = add ? of_motion[c] + value : value;
                    }
                }
        }
    };
    share((int)size, panel * panels, threads, part);
}

// What factors of frames t maps^T + bias get back: of_t [N, length, R] for gradients g [N, length, O] of the sums and inner
// [O, 2, R] of weight_products; where `entered`, the first frame has its motion, too.
template <class T>
void back_to_factors(int N, int length, int O, bool motion, bool entered, const T* g, const T* inner, int R, T* of_t, int threads) {
    const int halves = motion ? 2 : 1, depth = halves * O, wide = round_up(R, Lanes<T>::width), rows = N * length;
    std::vector<T> right((size_t)depth * wide, 0);
    for (int half = 0; half < halves; half++)
        for (int o = 0; o < O; o++)
            memcpy(&right[((size_t)half * O + o) * wide], inner + ((size_t)o * halves + half) * R, R * sizeof(T));
    share(rows, BATCH, threads, [&, N, length](int begin, int end) {
        std::vector<T> left((size_t)BATCH * depth), block((size_t)BATCH * wide);
        const T* pointers[BATCH];
        for (int i = 0; i < BATCH; i++) pointers[i] = &left[(size_t)i * depth];
        for (int first = begin; first < end; first += BATCH) {
            const int count = std::min(BATCH, end - first);
            for (int i = 0; i < count; i++) {
                const int k = (first + i) % length;
                const T* here = g + (size_t)(first + i) * O;
                T* to = &left[(size_t)i * depth];
                memcpy(to, here, O * sizeof(T));
                for (int o = 0; motion && o < O; o++)
                    to[O + o] = (k > 0 || entered ? here[o] : T(0)) - (k + 1 < length ? here[O + o] : T(0));
            }
            Segment<T> segment = {pointers, 0, right.data(), wide, depth};
            product<T, 1>(count, wide, &segment, StoreOrAdd<T>{block.data(), wide, false});
            for (int i = 0; i < count; i++) memcpy(of_t + (size_t)(first + i) * R, &block[(size_t)i * wide], R * sizeof(T));
        }
    });
}

// And of_maps [size, R] = [W_1, V]^T of_inner [O, 2, R], of_bias [size] = [W_1, V]^T of_common [O, 2].
template <class T>
void back_to_maps(int O, int64_t size, bool motion, const T* weight, const T* unit, const T* of_inner, const T* of_common, int R,
                  T* of_maps, T* of_bias, int threads) {
    const int halves = motion ? 2 : 1, depth = halves * O, wide = round_up(R, Lanes<T>::width);
    std::vector<T> right((size_t)depth * wide, 0), common(depth);
    for (int half = 0; half < halves; half++)
        for (int o = 0; o < O; o++) {
            memcpy(&right[((size_t)half * O + o) * wide], of_inner + ((size_t)o * halves + half) * R, R * sizeof(T));
            common[(size_t)half * O + o] = of_common[o * halves + half];
        }
    constexpr int rows = 48;
    share((int)size, rows, threads, [&, O, size](int begin, int end) {
        std::vector<T> left((size_t)rows * depth), block((size_t)rows * wide);
        const T* pointers[rows];
        for (int i = 0; i < rows; i++) pointers[i] = &left[(size_t)i * depth];
        for (int first = begin; first < end; first += rows) {
            const int count = std::min(rows, end - first);
            for (int half = 0; half < halves; half++)
                turn(O, weight + half * size, halves * size, first, count, left.data() + (size_t)half * O, depth);
            for (int i = 0; i < count; i++) {
                T *row = &left[(size_t)i * depth], sum = 0;
                for (int o = O; motion && unit && o < depth; o++) row[o] *= unit[first + i];
                typename Lanes<T>::V lanes = {};
                int o = 0;
                for (; o + Lanes<T>::width <= depth; o += Lanes<T>::width) lanes += load(row + o) * load(&common[o]);
                for (; o < depth; o++) sum += row[o] * common[o];
                of_bias[first + i] = sum + total<T>(lanes);
            }
            Segment<T> segment = {pointers, 0, right.data(), wide, depth};
            product<T, 1>(count, wide, &segment, StoreOrAdd<T>{block.data(), wide, false});
            for (int i = 0; i < count; i++) memcpy(of_maps + (size_t)(first + i) * R, &block[(size_t)i * wide], R * sizeof(T));
        }
    });
}

}  // namespace
