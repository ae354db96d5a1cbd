"""REST on the dashboard's port: scripts, their logs, the settings and how the workshop stands, for programs."""
