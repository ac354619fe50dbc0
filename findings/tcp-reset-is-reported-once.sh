#!/usr/bin/env bash
# Linux reports a TCP reset to one system call only: after a send has returned ECONNRESET, a reader of the same socket gets the
# queued data, then an orderly end. A program that sends and receives in two threads, or two tasks, mistakes a truncated stream
# for a complete one.
#
# expected: each direction learns of the reset (RFC 9293, 3.10.7.4: the user should receive an unsolicited "connection reset")
# seen:     the error is stored once per socket (sk_err) and cleared by the first call that reads it; recv then returns 0
# with:     Linux (uname -r below), Python for the sockets; no other package
#
# The relay of this project therefore treats an end that follows a failed send as a break (docs/relay.md).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/probe.py" <<'PYTHON'
import errno, platform, socket, struct, time

def broken_pair():
    """A connection whose far end has sent 5 bytes and then a reset."""
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    far.sendall(b"hello")
    near.sendall(b"never read")
    time.sleep(0.2)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    time.sleep(0.2)
    return near

def outcome(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]

print("Linux", platform.release())
reader_first = broken_pair()
first = [outcome(lambda: reader_first.recv(100)) for _ in range(3)]
print("recv first:           ", first)
sender_first = broken_pair()
sent = outcome(lambda: sender_first.send(b"x"))
then = [outcome(lambda: sender_first.recv(100)) for _ in range(2)]
print("send, then recv:      ", sent, then)
as_seen = "ECONNRESET" in first and sent == "ECONNRESET" and then[-1] == b"" and "ECONNRESET" not in then
raise SystemExit(0 if as_seen else 1)
PYTHON
python3 "$work/probe.py"
