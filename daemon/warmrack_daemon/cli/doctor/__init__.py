"""Checks of everything warmrack stands on, each a line: well, or what to do about it."""
