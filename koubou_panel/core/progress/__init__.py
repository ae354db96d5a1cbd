"""How far a run is, from what it prints: `reader` takes bytes in and gives a `Progress`; no clock, no threads.

`told` reads what a script says itself, `tools` and `guess` what one line of a tool's output means, `screen` follows the
lines on their rows, and `rate` works out what a tool does not say.
"""
