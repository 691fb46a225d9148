"""Executors start processes; the store alone says that something is done."""
