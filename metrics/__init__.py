"""What measuring means: registry, statistics of features, result lines."""
