"""The attacks, one per file; the registry imports every file whose name does not begin with `_`."""
