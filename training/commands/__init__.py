"""What every command shares: options and their types, files named by users, signals, what is printed."""
