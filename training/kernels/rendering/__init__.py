"""StyleGAN2's synthesis for rendering, without gradients."""
