"""Cloister's event log and report data, as docs/evidence.md specifies them; the example verify.py uses it.

Invariant: nothing in a log is authentic until a register or verified report data has confirmed its replay.
"""

import hashlib
import re
import struct

BYTES_LIMIT = 524288
EVENTS_LIMIT = 4096
DOMAIN = b"cloister event 1"


def sha384(data):
    return hashlib.sha384(data).digest()


def part(data):
    """L(x): what precedes data with its length."""
    return struct.pack(">I", len(data)) + data


# An entry: its register, and what is extended into it.
BOOT = (16, part(DOMAIN) + part(b"boot") + part(b""))


def entries(encoded):
    """The entries of an encoded log. ValueError: it is malformed."""
    if len(encoded) > BYTES_LIMIT:
        raise ValueError(f"the event log has more than {BYTES_LIMIT} bytes")
    found, at = [], 0

    def take(count):
        nonlocal at
        if count > len(encoded) - at:
            raise ValueError("the event log is truncated")
        at += count
        return encoded[at - count : at]

    def next_part(limit):
        length = int.from_bytes(take(4), "big")
        if length > limit:
            raise ValueError(f"an event has a part with more than {limit} bytes")
        return take(length)

    while at < len(encoded):
        start = at
        register = int.from_bytes(take(2), "big")
        domain, kind, _ = next_part(len(DOMAIN)), next_part(128), next_part(1024)
        if register not in (16, 17, 18) or domain != DOMAIN or not re.fullmatch(rb"[a-z0-9.-]+", kind):
            raise ValueError(f"the bytes of the event log from {start} on are not an event")
        found.append((register, encoded[start + 2 : at]))
        if len(found) > EVENTS_LIMIT:
            raise ValueError(f"the event log has more than {EVENTS_LIMIT} events")
    return found


def head(log):
    value = bytes(48)
    for register, extension in log:
        value = sha384(value + struct.pack(">H", register) + extension)
    return value


def replayed(log, register):
    """What the log gives for a register of AWS Nitro."""
    value = bytes(48)
    for number, extension in log:
        value = sha384(value + extension) if number == register else value
    return value


def report_data(nonce, key, log, user_data):
    bound = b"".join(map(part, (b"cloister report data 1", nonce, key, head(log), user_data)))
    return b"cloister bound 1" + sha384(bound)
