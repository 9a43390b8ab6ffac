"""How well predictions agree with references."""
