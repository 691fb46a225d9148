"""Cells: planned, computed, and written as results."""
