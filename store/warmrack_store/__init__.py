"""What both sides share: the domain and its state."""
