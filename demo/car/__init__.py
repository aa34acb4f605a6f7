"""The car: its parameters, how it drives, and how it is drawn."""
