"""Long work: folders of runs, locks, ranks and their heartbeats, saving, shards."""
