"""The doors: every port and socket through which the workshop is reached, and the one guard before them."""
