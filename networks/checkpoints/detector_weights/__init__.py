"""Weights of the networks that measure, each out of the files that people have."""
