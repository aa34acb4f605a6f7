"""What steers motion: continuing, loops, edits, transfer to another subject, sound, time; saved states."""
