"""What outlives the workshop's process: its database (`sqlite`, `writer`) and the output logs (`output`)."""
