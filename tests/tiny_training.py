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
