"""The pure core: records, facts, commands, and the functions that join them. No loop, no clock, no I/O."""
