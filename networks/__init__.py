"""Every torch.nn.Module of the project, and the reading and writing of checkpoints."""
