// Kernel and launcher; no PyTorch headers, so that any compiler that knows the GPU will do.
#include "bias_act_math.h"
#include "launching.h"

namespace {

const int kThreads = 256;
const int kElementsPerThread = 4;  // where there are no packs

template <class Element, class Index>
__global__ void __launch_bounds__(kThreads) element_kernel(BiasActArguments p) {
    const BiasAct<Element> f(p);
    Index index = Index(blockIdx.x) * (kThreads * kElementsPerThread) + threadIdx.x;
#pragma unroll
    for (int turn = 0; turn < kElementsPerThread; ++turn, index += kThreads) {
        if (index < Index(p.count)) bias_act_element<Element, Index>(p, f, index);
    }
}

template <class Element, class Index>
__global__ void __launch_bounds__(kThreads) pack_kernel(BiasActArguments p) {
    const Index index = (Index(blockIdx.x) * kThreads + threadIdx.x) * Index(Pack<Element>::SIZE);
    if (index < Index(p.count)) bias_act_pack<Element, Index>(p, BiasAct<Element>(p), index);
}

struct Launcher {
    template <class Element, class Index>
    static void start(const BiasActArguments& p, bool packs, unsigned blocks, cudaStream_t stream) {
        if (packs) pack_kernel<Element, Index><<<blocks, kThreads, 0, stream>>>(p);
        else element_kernel<Element, Index><<<blocks, kThreads, 0, stream>>>(p);
    }

    template <class Element>
    static cudaError_t launch(const BiasActArguments& p, cudaStream_t stream) {
        const bool packs = bias_act_has_packs<Element>(p);
        const long long per_block = kThreads * (packs ? int(Pack<Element>::SIZE) : kElementsPerThread);
        const long long blocks = (p.count + per_block - 1) / per_block;
        if (blocks > 0x7fffffffLL) return cudaErrorInvalidConfiguration;
        // divisions of 32-bit numbers are several times faster; the margin keeps the last index below 2^32
        if (p.count < 0xffffffffLL - per_block) start<Element, unsigned>(p, packs, unsigned(blocks), stream);
        else start<Element, unsigned long long>(p, packs, unsigned(blocks), stream);
        return cudaGetLastError();
    }
};

}  // namespace

extern "C" int bias_act_launch(const BiasActArguments* arguments, int element_type, void* stream) {
    if (arguments->count == 0) return cudaSuccess;
    return launch_for_type<Launcher>(*arguments, element_type, stream);
}

extern "C" const char* bias_act_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
