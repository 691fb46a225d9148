"""What a user starts: a matrix, one poison, one model, a detection, an import, a site."""
