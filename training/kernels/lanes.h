// Vectors as wide as the processor's (GCC, Clang), the functions of the gates on them, and products of small matrices.
#pragma once

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

}  // namespace
