"""Recordings as they lie on the disk: video files, images, animations, arrays; frames, times and colours."""
