"""What is measured: sets of videos, windows of codes, arrays, and which clips of them."""
