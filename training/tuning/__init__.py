"""An image generator tuned to embedded footage: which frames, what is minimised, and the life of a run."""
