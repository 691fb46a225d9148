"""What to run: one YAML file a table. `uebench list configs` names them."""
