// Upsampling, leaky ReLU and downsampling of images in one pass; see filtered_lrelu_cuda.py for the meaning.
#pragma once

// A filter: taps of a correlation, [taps] for both directions in turn, or [taps, taps].
struct FilterTaps {
    const float* taps;
    int          count, separable;
};

// Images [N, C, height, width] with strides in elements.
struct ImageStack {
    const void* values;
    int         width, height;
    long long   stride_x, stride_y, stride_c, stride_n;
};

// Between both resamplings lies the fine image. Its place p shows places (p - pad + t) / up of what is upsampled, for the taps t
// that make this a whole number; place o of the result is made of the fine places o * down - pad + t.
struct FilteredLreluArguments {
    ImageStack  x, z, y;               // z: what the slopes at x are applied to; no values: the function itself, of x
    const void* b;                     // bias [C] of x, or null
    FilterTaps  up_filter, z_filter, down_filter;
    int         up, z_up, down;        // 1, 2 or 4
    int         up_pad_x, up_pad_y, z_pad_x, z_pad_y, down_pad_x, down_pad_y;
    int         fine_width, fine_height;
    int         batch, channels;
    double      up_scale, scale;       // of the fine image before the function, and of the result
    double      gain, slope, clamp;    // negative clamp: none
};

extern "C" {
// Start the computation on a CUDA stream. Returns a cudaError_t.
int filtered_lrelu_launch(const FilteredLreluArguments* arguments, int element_type, void* stream);

// Text for such a number.
const char* filtered_lrelu_error_text(int code);
}
