"""What is generated: where codes come from, and what changes them on their way to the image generator."""
