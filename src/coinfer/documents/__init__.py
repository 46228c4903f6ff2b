"""Documents: YAML and JSON files whose errors name file, line and field. Knows no single file."""
