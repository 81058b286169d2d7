"""How a snapshot's bytes come into the cache: verified, resumable, published whole."""
