"""The training step's inner loops as operations in C++, with the derivatives that they need; without a compiler PyTorch does the same."""
