"""The page of a training run: what a person wants to know of it, measured, drawn and written into one HTML file."""
