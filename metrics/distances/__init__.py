"""Distances and their intervals: Frechet, kernel, bootstrap, and frame by frame."""
