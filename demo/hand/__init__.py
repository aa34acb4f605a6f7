"""The hand: its parameters, how it gestures, and how it is drawn."""
