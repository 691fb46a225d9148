"""Executors start worker processes; only the store decides whether something is done."""
