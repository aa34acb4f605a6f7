"""A small world of our own: a procedural talking head, a StyleGAN2 fitted to it, and the test bench made of both."""

from training.commands.command_line import share_cores

share_cores()  # before the modules here import torch: afterwards its threads would spin beside other work, see there
