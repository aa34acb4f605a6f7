"""Every torch.nn.Module of the project; `checkpoints` reads and writes files of them."""

from networks.host_compatibility import provide_pkg_resources

provide_pkg_resources()  # here, because every network imports the host's operations
