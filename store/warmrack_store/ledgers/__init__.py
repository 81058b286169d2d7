"""The ledgers: the only SQL. Each takes a transaction and gives back frozen records."""
