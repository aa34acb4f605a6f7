// Zero insertion, padding, FIR filter and decimation of images in one pass; see upfirdn2d.py for the meaning.
#pragma once

struct Upfirdn2dArguments {
    const void*  x;              // images
    const float* f;              // filter [filter_height, filter_width], contiguous
    void*        y;              // result
    int          up_x, up_y, down_x, down_y;
    int          pad_x0, pad_y0; // zeros before the first column and row; those behind the last follow from the sizes
    int          flip;           // 0 = convolution, 1 = correlation
    double       gain;
    int          batch, channels;
    int          in_width, in_height, out_width, out_height, filter_width, filter_height;
    long long    in_stride_x, in_stride_y, in_stride_c, in_stride_n;      // in elements
    long long    out_stride_x, out_stride_y, out_stride_c, out_stride_n;
};

extern "C" {
// Start the computation on a CUDA stream. Returns a cudaError_t.
int upfirdn2d_launch(const Upfirdn2dArguments* arguments, int element_type, void* stream);

// Text for such a number.
const char* upfirdn2d_error_text(int code);
}
