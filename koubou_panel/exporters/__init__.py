"""Export formats: each writes a plain document, made by whoever exports."""
