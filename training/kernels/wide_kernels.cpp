// Training on whole codes, whose thousands of numbers a frame make products of large matrices: these, and the critic behind its
// first layer and in it. Float and double, like temporal_kernels.cpp; critic/wide_products.py and critic/frame_sums.py call it.

#include "critic/frame_sums.h"
#include "critic/products.h"
#include "critic/wide_critic.h"

#define PRODUCTS(NAME, T)                                                                                                          \
    extern "C" void multiply_##NAME(int rows, int depth, int columns, const T* a, const int64_t* index, const T* b, int turned,    \
                                    T* out, int add, int threads) {                                                                \
        std::vector<const T*> pointers(rows);                                                                                      \
        for (int i = 0; i < rows; i++) pointers[i] = a + (index ? index[i] : i) * (int64_t)depth;                                  \
        multiply<T>(rows, depth, columns, pointers.data(), b, turned, out, add, threads);                                          \
    }                                                                                                                              \
    extern "C" void multiply_columns_##NAME(int rows, int depth, int columns, const T* a, const T* b, const int64_t* index,        \
                                            T* out, int add, int threads) {                                                        \
        std::vector<const T*> pointers(depth);                                                                                     \
        for (int k = 0; k < depth; k++) pointers[k] = b + (index ? index[k] : k) * (int64_t)columns;                               \
        multiply_columns<T>(rows, depth, columns, a, pointers.data(), out, add, threads);                                          \
    }

PRODUCTS(float, float)
PRODUCTS(double, double)

#define WIDE_CRITIC(NAME, T)                                                                                                       \
    extern "C" void* wide_create_##NAME(int frames, int num_linear, int num_layers, const int* widths, const double* slopes) {     \
        return new WideCritic<T>(frames, num_linear, num_layers, widths, slopes);                                                  \
    }                                                                                                                              \
    extern "C" void wide_destroy_##NAME(void* critic) { delete (WideCritic<T>*)critic; }                                           \
    extern "C" void wide_scores_##NAME(void* critic, const T* const* parameters, const T* sums, int batch, T* scores, T* d) {      \
        ((WideCritic<T>*)critic)->scores(parameters, sums, batch, scores, d);                                                      \
    }                                                                                                                              \
    extern "C" void wide_update_##NAME(void* critic, const T* const* parameters, T* const* gradients, const T* real,               \
                                       const T* fake, const T* gram, const T* mix, int batch, double lambda, T* scores,            \
                                       T* penalty, T* d, T* outer) {                                                               \
        ((WideCritic<T>*)critic)->update(parameters, gradients, real, fake, gram, mix, batch, lambda, scores, penalty, d, outer);  \
    }

WIDE_CRITIC(float, float)
WIDE_CRITIC(double, double)

extern "C" void* frame_plan_create(int count, const int64_t* frames, const int64_t* before) { return new FramePlan(count, frames, before); }
extern "C" void frame_plan_destroy(void* plan) { delete (FramePlan*)plan; }
extern "C" int frame_plan_rows(const void* plan) { return (int)((const FramePlan*)plan)->rows.size(); }

#define FRAME_SUMS(NAME, T)                                                                                                        \
    extern "C" void frame_sums_##NAME(const void* plan, int outputs, int64_t size, int motion, const T* weight, const T* unit,     \
                                      const T* frames, const T* common, T* out, int threads) {                                     \
        frame_sums<T>(*(const FramePlan*)plan, outputs, motion, weight, unit, {frames, size}, common, out, threads);               \
    }                                                                                                                              \
    extern "C" void frame_gradient_##NAME(const void* plan, int outputs, int64_t size, int motion, const T* unit, const T* frames, \
                                          const T* g, const T* outer, const T* weight, const T* inner, const T* maps,              \
                                          const T* of_common, const T* bias, int R, T* gradient, int add, int threads) {           \
        frame_gradient<T>(*(const FramePlan*)plan, outputs, motion, unit, {frames, size}, g,                                       \
                          {outer, weight, inner, maps, of_common, bias, R}, gradient, add, threads);                               \
    }                                                                                                                              \
    extern "C" void common_gradient_##NAME(const void* plan, int outputs, int motion, const T* g, T* of_common) {                  \
        common_gradient<T>(*(const FramePlan*)plan, outputs, motion, g, of_common);                                                \
    }                                                                                                                              \
    extern "C" void weight_products_##NAME(int outputs, int64_t size, int motion, const T* weight, const T* unit, T* gram, int R,  \
                                           const T* maps, const T* bias, T* inner, T* common, int threads) {                       \
        weight_products<T>(outputs, size, motion, weight, unit, gram, R, maps, bias, inner, common, threads);                      \
    }                                                                                                                              \
    extern "C" void back_to_factors_##NAME(int count, int length, int outputs, int motion, int entered, const T* g,                \
                                           const T* inner, int R, T* of_t, int threads) {                                          \
        back_to_factors<T>(count, length, outputs, motion, entered, g, inner, R, of_t, threads);                                   \
    }                                                                                                                              \
    extern "C" void back_to_maps_##NAME(int outputs, int64_t size, int motion, const T* weight, const T* unit, const T* of_inner,  \
                                        const T* of_common, int R, T* of_maps, T* of_bias, int threads) {                          \
        back_to_maps<T>(outputs, size, motion, weight, unit, of_inner, of_common, R, of_maps, of_bias, threads);                   \
    }

FRAME_SUMS(float, float)
FRAME_SUMS(double, double)
