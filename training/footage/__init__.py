"""Footage: clips of recordings, the first look at them, cuts, faces, alignment."""
