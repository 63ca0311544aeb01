"""A run: its state, folder, logs, resume, summary."""
