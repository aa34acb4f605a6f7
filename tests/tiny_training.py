"""Options of train_video.py for a model that learns nothing worth seeing, in milliseconds a step; 144 frames a step."""

TINY_TRAINING = (
    '--window=9',
    '--latent-dim=8',
    '--noise-dim=8',
    '--hidden-dim=8',
    '--initial-widths=8',
    '--widening-widths=16',
    '--narrowing-widths=8',
    '--temporal-channels=8',
    '--batch=8',
    '--device=cpu',
)

# A program that runs a command in a process of its own, SCRIPT ARGUMENTS, with the short look of conftest.py at its model.
SHORT_LOOK = """
import os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from training import stationarity
stationarity.LONGEST_BURN_IN = stationarity.REFERENCE_FRAMES = 50
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
