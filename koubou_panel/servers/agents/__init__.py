"""The agents' port (8765): REST and MCP over one shop, behind one guard."""
