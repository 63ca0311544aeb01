"""A run or a released network in a file, and back."""
