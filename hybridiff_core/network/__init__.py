"""What is asked of a network."""
