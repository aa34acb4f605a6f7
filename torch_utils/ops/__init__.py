"""Operations with a plain PyTorch form that says what they mean, and CUDA forms where they pay."""
