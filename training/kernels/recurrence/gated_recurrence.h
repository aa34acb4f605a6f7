// A stack of GRU cells over all time steps in one launch, and its first and second derivatives; see gated_recurrence.py.
#pragma once

enum RecurrencePass { PASS_FORWARD = 0, PASS_TANGENT = 1, PASS_BACKWARD = 2, PASS_SECOND = 3 };

// N samples, K steps, C cells of 32 units each (RECURRENCE_SIZE, below D); all tensors are contiguous. In brackets what uses it.
struct RecurrenceArguments {
    int         count, steps, cells;
    const void* noise;        // [N, K, D], or its tangent                             (forward, tangent)
    const void* first;        // memories before the first step [C, N, D], or tangent  (forward, tangent)
    const void* weight_ih;    // [C, 3 D, D]; rows of the gates r, z, n                (all)
    const void* weight_hh;    // [C, 3 D, D]                                           (all)
    const void* bias_ih;      // [C, 3 D]                                              (forward)
    const void* bias_hh;      // [C, 3 D]                                              (forward)
    void*       memories;     // [K + 1, C, N, D]                                      (written by forward, read by the others)
    void*       saved;        // [K, C, N, 4 D]: r, z, n, W_hn h + b_hn; or null       (written by forward, read by the others)
    void*       l;            // memories of the last cell [N, K + 1, D], or tangents  (forward, tangent)
    void*       t_memories;   // tangents of memories                                  (written by tangent, read by second)
    void*       tangents;     // of the gates' arguments [K, C, N, 4 D]                (written by tangent, read by second)
    const void* g_l;          // gradient that reaches l, or null                      (backward, second)
    const void* g_memories;   // gradient that reaches memories, or null               (backward, second)
    void*       of_tangents;  // gradients of the gates' arguments [C, K, N, 4 D]      (backward, second)
    void*       of_values;    // the same for second derivatives                       (second)
    void*       d_noise;      // [N, K, D]                                             (backward, second)
    void*       d_first;      // [C, N, D]                                             (backward, second)
};

extern "C" {
// Start a pass on a CUDA stream, with numbers of 4 or 8 bytes. Returns a cudaError_t.
int gated_recurrence_launch(const RecurrenceArguments* arguments, int pass, int bytes, void* stream);

// Text for such a number.
const char* gated_recurrence_error_text(int code);
}
