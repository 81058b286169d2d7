"""The GPU side: node agent, fetcher, residency loop, model hosts."""
