"""The part of a file that a Range header asks for; pure."""

import re

from warmrack_workers.mirror.refusals import Refused

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def find_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for the whole file, which also answers what is
    no range or several of them (RFC 9110, 14.2). Raises Refused with 416 where no byte is in it."""
    found = _RANGE.fullmatch((header or "").replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        start = int(found[1])
        end = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
        if found[2] and int(found[2]) < start:
            return None
    else:
        start, end = max(0, size_bytes - int(found[2])), size_bytes
    if start >= end:
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise Refused(416, None, f"the file has {size_bytes} bytes", headers)
    return start, end
