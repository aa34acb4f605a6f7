// Number types of tensors, and the type that their arithmetic is done in.
#pragma once

#include <stddef.h>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define ON_BOTH_SIDES __host__ __device__ __forceinline__
#else  // plain C++: the tests run the same functions without a GPU
#define ON_BOTH_SIDES inline
#endif

// As many neighbours in memory as a thread reads or writes with one instruction.
const int kPackBytes = 16;
template <class Element> struct alignas(kPackBytes) Pack {
    enum { SIZE = kPackBytes / sizeof(Element) };
    Element values[SIZE];
};

inline bool is_aligned(const void* address) { return reinterpret_cast<size_t>(address) % kPackBytes == 0; }  // null is

enum ElementType { ELEMENT_FLOAT32 = 0, ELEMENT_FLOAT16 = 1, ELEMENT_BFLOAT16 = 2, ELEMENT_FLOAT64 = 3 };

template <class Element> struct ScalarOf { typedef float type; };
template <> struct ScalarOf<double> { typedef double type; };

ON_BOTH_SIDES float to_scalar(float value) { return value; }
ON_BOTH_SIDES double to_scalar(double value) { return value; }
ON_BOTH_SIDES void from_scalar(float value, float* to) { *to = value; }
ON_BOTH_SIDES void from_scalar(double value, double* to) { *to = value; }

#if defined(__CUDACC__)
ON_BOTH_SIDES float to_scalar(__half value) { return __half2float(value); }
ON_BOTH_SIDES float to_scalar(__nv_bfloat16 value) { return __bfloat162float(value); }
ON_BOTH_SIDES void from_scalar(float value, __half* to) { *to = __float2half(value); }
ON_BOTH_SIDES void from_scalar(float value, __nv_bfloat16* to) { *to = __float2bfloat16(value); }
#endif
