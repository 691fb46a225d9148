"""The content-addressed store, and arrays larger than memory."""
