"""The seat of a person at a keyboard: the workshop as Python objects."""
