"""Events of the footage, such as blinks: when they may come, and how large they are."""
