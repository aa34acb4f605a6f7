// The temporal step's inner loops for processors: the critic's passes and the recurrence of the generator, one thread, float and double.
//
// Plain C functions over raw pointers, so that compiling needs no header of PyTorch and takes seconds; native_code.py compiles this
// file, and critic_native.py, fast_rollout.py and fast_decoder.py call it. All loops run over small blocks of samples, whose
// activations stay in the cache through all passes. The vectors are those of the compiler (GCC, Clang), as wide as the processor's.

#include "critic/critic.h"
#include "lanes.h"
#include "recurrence/recurrence.h"
#include "stack.h"

#define CRITIC(NAME, T)                                                                                                            \
    extern "C" void* critic_create_##NAME(int features, int frames, int num_linear, int num_layers, const int* widths,             \
                                          const double* slopes) {                                                                  \
        return new Critic<T>(features, frames, num_linear, num_layers, widths, slopes);                                            \
    }                                                                                                                              \
    extern "C" void critic_destroy_##NAME(void* critic) { delete (Critic<T>*)critic; }                                             \
    extern "C" void critic_update_##NAME(void* critic, const T* const* parameters, T* const* gradients, const T* real,             \
                                         const T* fake, const T* mix, int batch, double lambda, T* scores, T* penalty) {           \
        ((Critic<T>*)critic)->update(parameters, gradients, real, fake, mix, batch, lambda, scores, penalty);                      \
    }                                                                                                                              \
    extern "C" void critic_input_gradient_##NAME(void* critic, const T* const* parameters, const T* x, int batch, T* scores,       \
                                                 T* gradient) {                                                                    \
        ((Critic<T>*)critic)->input_gradient(parameters, x, batch, scores, gradient);                                              \
    }

CRITIC(float, float)
CRITIC(double, double)

#define RECURRENCE(NAME, T)                                                                                                        \
    extern "C" void rollout_forward_##NAME(int count, int steps, int cells, int size, const T* noise, const T* ih, const T* hh,    \
                                           const T* b_ih, const T* b_hh, T* memories, T* saved, T* l) {                            \
        Recurrence<T>{count, steps, cells, size, noise, ih, hh, b_ih, b_hh, memories, saved}.forward(l);                           \
    }                                                                                                                              \
    extern "C" void rollout_backward_##NAME(int count, int steps, int cells, int size, const T* noise, const T* ih, const T* hh,   \
                                            T* memories, T* saved, const T* g_l, const T* g_memories, T* g_noise, T* g_first,      \
                                            T* g_ih, T* g_hh, T* g_b_ih, T* g_b_hh) {                                              \
        Recurrence<T>{count, steps, cells, size, noise, ih, hh, nullptr, nullptr, memories, saved}.backward(                       \
            g_l, g_memories, g_noise, g_first, g_ih, g_hh, g_b_ih, g_b_hh);                                                        \
    }                                                                                                                              \
    extern "C" void rollout_second_##NAME(int count, int steps, int cells, int size, const T* noise, const T* ih, const T* hh,     \
                                          T* memories, T* saved, const T* g_l, const T* g_memories, const T* v_noise,              \
                                          T* t_memories, T* t_l, T* d_noise, T* d_first, T* d_ih, T* d_hh, T* d_b_ih,              \
                                          T* d_b_hh) {                                                                             \
        Recurrence<T>{count, steps, cells, size, noise, ih, hh, nullptr, nullptr, memories, saved}.second(                         \
            g_l, g_memories, v_noise, t_memories, t_l, d_noise, d_first, d_ih, d_hh, d_b_ih, d_b_hh);                              \
    }

RECURRENCE(float, float)
RECURRENCE(double, double)

#define STACK(NAME, T)                                                                                                             \
    extern "C" int lanes_##NAME() { return Lanes<T>::width; }                                                                      \
    extern "C" void stack_forward_##NAME(int rows, int num_layers, const int* widths, const double* slopes,                        \
                                         const T* const* parameters, const T* x, T* const* kept, T* out) {                         \
        Stack<T>(rows, num_layers, widths, slopes, parameters).forward(x, kept, out);                                              \
    }                                                                                                                              \
    extern "C" void stack_backward_##NAME(int rows, int num_layers, const int* widths, const double* slopes,                       \
                                          const T* const* parameters, const T* x, T* const* kept, const T* g_out, T* g_x,          \
                                          T* const* gradients) {                                                                   \
        Stack<T>(rows, num_layers, widths, slopes, parameters).backward(x, kept, g_out, g_x, gradients);                           \
    }

STACK(float, float)
STACK(double, double)
