"""The error of a peer that is not on this machine."""


class PeerMissing(Exception):
    """The row skips this comparison and shows the message."""
