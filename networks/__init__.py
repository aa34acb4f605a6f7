"""Every torch.nn.Module of the project, and the reading and writing of checkpoints."""

from networks.host_compatibility import provide_pkg_resources

provide_pkg_resources()  # here, because every network imports the host's operations
