"""The public Python client of warmrack."""
