"""New videos in files: options to a plan, codes of a subject, frames, and the record of what was made."""
