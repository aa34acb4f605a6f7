// Kernel and launcher; no PyTorch headers, so that any compiler that knows the GPU will do.
#include <cuda_runtime.h>

#include "gated_recurrence_math.h"

namespace {

const int kForwardThreads = RECURRENCE_MOST_CELLS * 3 * RECURRENCE_SIZE;
const int kBackwardThreads = RECURRENCE_MOST_CELLS * 2 * RECURRENCE_SIZE;
const int kWideFrom = 264;  // samples from which on a block takes two: two for each processor of a large GPU

template <class Pass, bool FORWARD>
__device__ void run(Pass& shared, const RecurrenceArguments& p) {
    typename Pass::Thread own;
    shared.begin(p, blockIdx.x, threadIdx.x, own);
    __syncthreads();
    for (int wave = 0; wave < p.steps + p.cells - 1; ++wave) {
        if (FORWARD) shared.products(p, blockIdx.x, wave, threadIdx.x, own);
        else shared.units(p, blockIdx.x, wave, threadIdx.x, own);
        __syncthreads();
        if (FORWARD) shared.units(p, blockIdx.x, wave, threadIdx.x, own);
        else shared.products(p, blockIdx.x, wave, threadIdx.x, own);
        __syncthreads();
    }
    shared.end(p, blockIdx.x, threadIdx.x);
}

template <class T, int SAMPLES, bool TANGENT>
__global__ void __launch_bounds__(kForwardThreads) forward_kernel(RecurrenceArguments p) {
    __shared__ RecurrenceForward<T, SAMPLES, TANGENT> shared;
    run<RecurrenceForward<T, SAMPLES, TANGENT>, true>(shared, p);
}

template <class T, int SAMPLES, bool SECOND>
__global__ void __launch_bounds__(kBackwardThreads) backward_kernel(RecurrenceArguments p) {
    __shared__ RecurrenceBackward<T, SAMPLES, SECOND> shared;
    run<RecurrenceBackward<T, SAMPLES, SECOND>, false>(shared, p);
}

template <class T, int SAMPLES>
cudaError_t launch(const RecurrenceArguments& p, int pass, cudaStream_t stream) {
    const unsigned blocks = (unsigned(p.count) + SAMPLES - 1) / SAMPLES;
    const int forward = p.cells * 3 * RECURRENCE_SIZE, backward = p.cells * 2 * RECURRENCE_SIZE;
    switch (pass) {
        case PASS_FORWARD:  forward_kernel<T, SAMPLES, false><<<blocks, forward, 0, stream>>>(p); break;
        case PASS_TANGENT:  forward_kernel<T, SAMPLES, true><<<blocks, forward, 0, stream>>>(p); break;
        case PASS_BACKWARD: backward_kernel<T, SAMPLES, false><<<blocks, backward, 0, stream>>>(p); break;
        case PASS_SECOND:   backward_kernel<T, SAMPLES, true><<<blocks, backward, 0, stream>>>(p); break;
        default:            return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

template <class T>
cudaError_t choose(const RecurrenceArguments& p, int pass, cudaStream_t stream) {
    return p.count < kWideFrom ? launch<T, 1>(p, pass, stream) : launch<T, 2>(p, pass, stream);
}

}  // namespace

extern "C" int gated_recurrence_launch(const RecurrenceArguments* arguments, int pass, int bytes, void* stream) {
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (arguments->cells < 1 || arguments->cells > RECURRENCE_MOST_CELLS) return cudaErrorInvalidValue;
    if (arguments->count == 0) return cudaSuccess;
    if (bytes == 4) return choose<float>(*arguments, pass, on);
    return bytes == 8 ? choose<double>(*arguments, pass, on) : cudaErrorInvalidValue;
}

extern "C" const char* gated_recurrence_error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
