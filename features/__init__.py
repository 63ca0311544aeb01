"""A frozen network over a data set: the one pass, and its rows in files."""
