"""Koubou Panel: runs long work on your own machine and shows it live."""
