"""One defense a file; the registry imports every file here that does not begin with `_`."""
