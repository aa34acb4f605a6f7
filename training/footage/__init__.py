"""Recordings in: files, clips, the first look at them, cuts, faces, alignment."""
