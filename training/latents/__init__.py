"""Codes on the disk: latent data sets, their operations and statistics, code files."""
