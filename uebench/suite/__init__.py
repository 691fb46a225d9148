"""What a user starts: a matrix, one poison, one model, a paper's table."""
