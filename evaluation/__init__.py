"""What the eval_*.py scripts compute."""
