"""What the server takes beyond the stages themselves, as ratios within one run."""
