"""Endless video for people who watch and change it while it runs: play_video.py's motion, stage, server and page."""
