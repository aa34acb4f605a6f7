"""Codes to frames: synthesis, video files, and the sets of videos that metrics compare."""
