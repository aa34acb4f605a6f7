"""Footage to new video in one command: the steps, how far they are, and what they leave in one folder."""
