"""Metrics, one a file: whatever lies here is imported, and registers itself."""
