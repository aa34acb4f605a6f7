"""The inner loops of a training step in C++, with their derivatives; without a compiler PyTorch computes the same."""
