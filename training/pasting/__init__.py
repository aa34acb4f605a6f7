"""Crops back into the recording that they were cut out of: masks, colours, frames, files."""
