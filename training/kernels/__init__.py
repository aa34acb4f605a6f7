"""Inner loops in C++ and CUDA, with their derivatives; without a compiler PyTorch computes the same."""
