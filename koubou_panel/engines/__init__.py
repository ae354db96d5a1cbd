"""Where a task runs: worker processes, or the test itself."""
