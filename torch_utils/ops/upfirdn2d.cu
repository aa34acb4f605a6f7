// Kernels and launcher; no PyTorch headers, so that any compiler that knows the GPU will do.
#include "upfirdn2d_math.h"
#include "launching.h"

namespace {

const int kThreads = 256;
const unsigned kMostPlanes = 65535;  // limit of the third dimension of a grid

template <class Element, class Index>
__global__ void __launch_bounds__(kThreads) element_kernel(Upfirdn2dArguments p, Index count) {
    const Index index = Index(blockIdx.x) * kThreads + threadIdx.x;
    if (index < count) upfirdn2d_element<Element, Index>(p, index);
}

template <class Element, class Index>
__global__ void __launch_bounds__(kThreads) pack_kernel(Upfirdn2dArguments p, Index count) {
    const Index index = Index(blockIdx.x) * kThreads + threadIdx.x;
    if (index < count) upfirdn2d_pack<Element, Index>(p, index);
}

template <class Element, int UP, int DOWN, int TAPS>
__global__ void __launch_bounds__(kThreads) tile_kernel(Upfirdn2dArguments p, long long planes) {
    __shared__ Upfirdn2dTile<Element, UP, DOWN, TAPS> tile;
    const int column = blockIdx.x * tile.WIDTH, row = blockIdx.y * tile.HEIGHT;
    for (long long plane = blockIdx.z; plane < planes; plane += gridDim.z) {
        const int c = int(plane % p.channels), n = int(plane / p.channels);
        tile.load(p, column, row, c, n, threadIdx.x, kThreads);
        __syncthreads();
        tile.compute(p, column, row, c, n, threadIdx.x, kThreads);
        __syncthreads();
    }
}

template <class Element, int UP, int DOWN, int TAPS>
cudaError_t launch_tiles(const Upfirdn2dArguments& p, cudaStream_t stream) {
    typedef Upfirdn2dTile<Element, UP, DOWN, TAPS> Tile;
    const long long planes = (long long)p.batch * p.channels;
    const dim3 grid((p.out_width + Tile::WIDTH - 1) / Tile::WIDTH, (p.out_height + Tile::HEIGHT - 1) / Tile::HEIGHT,
                    planes < kMostPlanes ? unsigned(planes) : kMostPlanes);
    tile_kernel<Element, UP, DOWN, TAPS><<<grid, kThreads, 0, stream>>>(p, planes);
    return cudaGetLastError();
}

struct Launcher {
    template <class Element>
    static cudaError_t launch(const Upfirdn2dArguments& p, cudaStream_t stream) {
        const bool square = p.up_x == p.up_y && p.down_x == p.down_y && p.filter_width == 4 && p.filter_height == 4;
        const bool planar = p.out_stride_x == 1 && p.in_stride_x == 1 && p.out_height <= 65535 * 32;
        if (square && planar && p.out_width >= 8) {  // tiles of smaller images would be mostly empty
            if (p.up_x == 1 && p.down_x == 1) return launch_tiles<Element, 1, 1, 4>(p, stream);
            if (p.up_x == 2 && p.down_x == 1) return launch_tiles<Element, 2, 1, 4>(p, stream);
            if (p.up_x == 1 && p.down_x == 2) return launch_tiles<Element, 1, 2, 4>(p, stream);
        }
        const bool packs = upfirdn2d_has_packs<Element>(p);
        const long long count = (long long)p.batch * (packs ? p.channels / int(Pack<Element>::SIZE) : p.channels) * p.out_width *
                                p.out_height;
        const long long blocks = (count + kThreads - 1) / kThreads;
        if (blocks > 0x7fffffffLL) return cudaErrorInvalidConfiguration;
        // divisions of 32-bit numbers are several times faster; the margin keeps the last index below 2^32
        if (count < 0xffffffffLL - kThreads) start(p, unsigned(count), packs, unsigned(blocks), stream, Element());
        else start(p, (unsigned long long)count, packs, unsigned(blocks), stream, Element());
        return cudaGetLastError();
    }

    template <class Element, class Index>
    static void start(const Upfirdn2dArguments& p, Index count, bool packs, unsigned blocks, cudaStream_t stream, Element) {
        if (packs) pack_kernel<Element, Index><<<blocks, kThreads, 0, stream>>>(p, count);
        else element_kernel<Element, Index><<<blocks, kThreads, 0, stream>>>(p, count);
    }
};

}  // namespace

extern "C" int upfirdn2d_launch(const Upfirdn2dArguments* arguments, int element_type, void* stream) {
    if (arguments->batch == 0 || arguments->channels == 0) return cudaSuccess;
    return launch_for_type<Launcher>(*arguments, element_type, stream);
}

extern "C" const char* upfirdn2d_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
