"""The defenses, one per file; the registry imports every file without a leading `_`."""
