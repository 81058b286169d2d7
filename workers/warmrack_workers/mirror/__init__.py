"""What a node serves to others of what it holds: a read-only Hub for stock tools, bytes for peers."""
