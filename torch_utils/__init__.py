"""Helpers around torch that pickles and scripts of the StyleGAN family bind to by name."""
