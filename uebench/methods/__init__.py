"""What an attack and a defense are, and how they are found by name."""
