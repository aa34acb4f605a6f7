// Bias, activation function, gain and clamping in one pass over the memory, and the first and second derivative.
#pragma once

struct BiasActArguments {
    const void* x;        // grad 0: input; grad 1: gradient towards the output; grad 2: gradient towards that of the input
    const void* b;        // bias [bias_size], or null
    const void* xref;     // input of the forward pass, or null where nothing depends on it
    const void* yref;     // output of the forward pass, or null to compute it from xref where something depends on it
    const void* dy;       // grad 2: gradient towards the output
    void*       y;        // result
    long long   count;    // elements of x, xref, yref, dy and y, which all have the same dense layout
    long long   bias_size;
    long long   bias_step;  // distance in memory between elements with neighbouring biases
    int         grad;     // which derivative: 0, 1 or 2
    int         act;      // `cuda_idx` in bias_act.py
    double      alpha;
    double      gain;     // not 0
    double      clamp;    // negative = none
};

extern "C" {
// Start the computation on a CUDA stream. Returns a cudaError_t.
int bias_act_launch(const BiasActArguments* arguments, int element_type, void* stream);

// Text for such a number.
const char* bias_act_error_text(int code);
}
