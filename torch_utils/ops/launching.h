// Which kernel an operation launches, by the type of its numbers.
#pragma once

#include <cuda_runtime.h>

#include "element_types.h"

// Launcher::launch<Element>(arguments, stream) launches the kernel for one type; the result is a cudaError_t.
template <class Launcher, class Arguments>
int launch_for_type(const Arguments& arguments, int element_type, void* stream) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    switch (element_type) {
        case ELEMENT_FLOAT32:  return Launcher::template launch<float>(arguments, on);
        case ELEMENT_FLOAT16:  return Launcher::template launch<__half>(arguments, on);
        case ELEMENT_BFLOAT16: return Launcher::template launch<__nv_bfloat16>(arguments, on);
        case ELEMENT_FLOAT64:  return Launcher::template launch<double>(arguments, on);
        default:               return cudaErrorInvalidValue;
    }
}
