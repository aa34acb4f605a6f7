// Kernel and launcher; no PyTorch headers, so that any compiler that knows the GPU will do.
#include "bias_act_math.h"
#include "launching.h"

namespace {

const int kThreads = 256;
const int kElementsPerThread = 4;

template <class Element, class Index>
__global__ void __launch_bounds__(kThreads) bias_act_kernel(BiasActArguments p) {
    Index index = Index(blockIdx.x) * (kThreads * kElementsPerThread) + threadIdx.x;
#pragma unroll
    for (int turn = 0; turn < kElementsPerThread; ++turn, index += kThreads) {
        if (index < Index(p.count)) bias_act_element<Element, Index>(p, index);
    }
}

struct Launcher {
    template <class Element>
    static cudaError_t launch(const BiasActArguments& p, cudaStream_t stream) {
        const long long per_block = kThreads * kElementsPerThread;
        const long long blocks = (p.count + per_block - 1) / per_block;
        if (blocks > 0x7fffffffLL) return cudaErrorInvalidConfiguration;
        // divisions of 32-bit numbers are several times faster; the margin keeps the last index below 2^32
        if (p.count < 0xffffffffLL - per_block) bias_act_kernel<Element, unsigned><<<unsigned(blocks), kThreads, 0, stream>>>(p);
        else bias_act_kernel<Element, unsigned long long><<<unsigned(blocks), kThreads, 0, stream>>>(p);
        return cudaGetLastError();
    }
};

}  // namespace

extern "C" int bias_act_launch(const BiasActArguments* arguments, int element_type, void* stream) {
    if (arguments->count == 0) return cudaSuccess;
    return launch_for_type<Launcher>(*arguments, element_type, stream);
}

extern "C" const char* bias_act_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
