"""The talking head: its parameters, how it moves, and how it is drawn."""
