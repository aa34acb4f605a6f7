"""A small world of our own: a procedural talking head, a StyleGAN2 fitted to it, and the test bench made of both."""
