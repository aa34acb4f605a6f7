"""What hangs on an interface: one metric, one file, found by its presence."""
