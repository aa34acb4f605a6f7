// Vectors of channels for the passes over maps [N, H, W, C] of float or bfloat16 (GCC, Clang); all arithmetic is in float.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

typedef float V __attribute__((vector_size(4 * LANES)));
typedef uint32_t VI __attribute__((vector_size(4 * LANES)));
typedef uint16_t VH __attribute__((vector_size(2 * LANES)));
typedef float VU __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t VHU __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

typedef uint16_t bfloat;

// Vectors and single numbers under the same names, so that one loop body serves whole vectors and the rest of the channels.
INLINE V load(const float* p, V*) { return *(const VU*)p; }
INLINE float load(const float* p, float*) { return *p; }
INLINE V load(const bfloat* p, V*) { return (V)(__builtin_convertvector(*(const VHU*)p, VI) << 16); }
INLINE float load(const bfloat* p, float*) {
    const uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
INLINE void store(float* p, V v) { *(VU*)p = v; }
INLINE void store(float* p, float v) { *p = v; }
INLINE void store(bfloat* p, V v) {  // to nearest, ties to even
    const VI bits = (VI)v;
    *(VHU*)p = __builtin_convertvector((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, VH);
}
INLINE void store(bfloat* p, float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    *p = (bfloat)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
INLINE V smaller(V a, V b) { return a < b ? a : b; }
INLINE V larger(V a, V b) { return a > b ? a : b; }
INLINE float smaller(float a, float b) { return a < b ? a : b; }
INLINE float larger(float a, float b) { return a > b ? a : b; }
INLINE float total(V v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}
INLINE float total(float v) { return v; }

}  // namespace
