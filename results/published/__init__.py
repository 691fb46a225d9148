"""Accuracies that papers and leaderboards print, one CSV a source; README.md says what they are."""
