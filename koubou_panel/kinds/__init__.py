"""What a task can be: one file a kind."""
