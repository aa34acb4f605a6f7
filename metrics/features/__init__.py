"""Features of clips: the networks that compute them, and how all ranks compute them once."""
