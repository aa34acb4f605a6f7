// Kernel and launcher; no PyTorch headers, so that any compiler that knows the GPU will do.
#include "filtered_lrelu_math.h"
#include "launching.h"

namespace {

const int kThreads = FILTERED_LRELU_COLUMNS * FILTERED_LRELU_ROWS;
const int kMostBytes = 48 * 1024;  // of shared memory, which every GPU has
const long long kMostPlanes = 65535;  // limit of the second dimension of a grid

template <class Element, int UP, int Z_UP, int DOWN>
__global__ void __launch_bounds__(kThreads) filtered_lrelu_kernel(FilteredLreluArguments p, int side) {
    extern __shared__ double shared[];
    __shared__ float taps[3][FILTERED_LRELU_MOST_TAPS];  // of filters that are separable; others stay where they are
    FilterTaps* filters[3] = {&p.up_filter, &p.z_filter, &p.down_filter};
#pragma unroll
    for (int each = 0; each < 3; ++each) {
        if (!filters[each]->separable) continue;
        for (int tap = threadIdx.x; tap < filters[each]->count; tap += kThreads) taps[each][tap] = filters[each]->taps[tap];
        filters[each]->taps = taps[each];
    }
    const long long planes = (long long)p.batch * p.channels;
    for (long long plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        FilteredLreluStages<Element> stages(p, side, shared, blockIdx.x, int(plane), threadIdx.x);
#pragma unroll
        for (int stage = 0; stage < 8; ++stage) {
            __syncthreads();
            stages.template run<UP, Z_UP, DOWN>(stage);
        }
    }
}

template <class Element, int UP, int Z_UP, int DOWN>
cudaError_t start(const FilteredLreluArguments& p, cudaStream_t stream) {
    typedef typename ScalarOf<Element>::type S;
    for (int side = 32; side > 0; side -= 8) {
        const size_t bytes = FilteredLreluTiles(p, side).total() * sizeof(S);
        if (bytes + sizeof(float) * 3 * FILTERED_LRELU_MOST_TAPS > size_t(kMostBytes)) continue;
        const long long tiles = (long long)((p.y.width + side - 1) / side) * ((p.y.height + side - 1) / side);
        const long long planes = (long long)p.batch * p.channels;
        if (tiles > 0x7fffffffLL || planes > 0x7fffffffLL) return cudaErrorInvalidConfiguration;
        const dim3 grid(unsigned(tiles), unsigned(planes < kMostPlanes ? planes : kMostPlanes));
        filtered_lrelu_kernel<Element, UP, Z_UP, DOWN><<<grid, kThreads, bytes, stream>>>(p, side);
        return cudaGetLastError();
    }
    return cudaErrorInvalidConfiguration;
}

// What StyleGAN3 needs: layers that keep the resolution and layers that double it; then the transposed slopes of the latter, which
// resample the other way round. Everything else is composed.
struct Launcher {
    template <class Element>
    static cudaError_t launch(const FilteredLreluArguments& p, cudaStream_t on) {
        if (p.up == 2 && p.z_up == 2 && p.down == 2) return start<Element, 2, 2, 2>(p, on);
        if (p.up == 4 && p.z_up == 4 && p.down == 2) return start<Element, 4, 4, 2>(p, on);
        if (p.up == 4 && p.z_up == 2 && p.down == 4) return start<Element, 4, 2, 4>(p, on);
        return cudaErrorInvalidValue;
    }
};

}  // namespace

extern "C" int filtered_lrelu_launch(const FilteredLreluArguments* arguments, int element_type, void* stream) {
    if (arguments->batch == 0 || arguments->channels == 0) return cudaSuccess;
    return launch_for_type<Launcher>(*arguments, element_type, stream);
}

extern "C" const char* filtered_lrelu_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
