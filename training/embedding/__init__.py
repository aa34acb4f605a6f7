"""Footage to codes: inversion, encoders and their training, the review of what came out."""
