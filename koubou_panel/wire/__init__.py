"""Sans-I/O protocols: bytes and texts in, bytes and texts out. No socket, no clock, no loop."""
