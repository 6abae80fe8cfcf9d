"""What the commands of preprocess/ have done by their workers, and what they share."""
