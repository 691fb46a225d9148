"""What an attack, a defense and a victim are, and how they are found by name."""
