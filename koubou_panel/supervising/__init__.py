"""What the supervisor is made of: its processes, what it says of them, and which of them serves a model."""
