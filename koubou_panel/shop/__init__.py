"""The running workshop: the only place with a loop, a clock and background work."""
