"""How processes wake one another: a doorbell for work, wake-ups for those who wait."""
