"""Workers' life and wire."""
