"""What a training step computes on: chains of videos, whole codes without writing them down, portions of a batch."""
