"""Every torch.nn.Module of the project; `checkpoints` reads and writes files of them."""

import sys

# Before anything that an older Python cannot read: the environments of stylegan3 have one.
if sys.version_info < (3, 10):  # noqa: UP036
    print('Error: Python %d.%d is too old; 3.10 or later is needed' % sys.version_info[:2], file=sys.stderr)  # noqa: UP031
    sys.exit(2)

from networks.host_compatibility import provide_pkg_resources

provide_pkg_resources()  # here, because every network imports the host's operations
