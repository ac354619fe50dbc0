#!/usr/bin/env bash
# A program that binds every ephemeral port prevents all others in its network namespace from connecting, to any address, and the
# option that is meant for this does not help. It needs no privileges: one descriptor per port, and nothing has to listen.
#
# expected: IP_BIND_ADDRESS_NO_PORT (ip(7): a port is picked when connecting, and two connections may have the same one if their
#           other ends differ) lets another program connect: there is no connection with which its own could be confused
# seen:     it connects as long as the ports are used by connections, and fails with EADDRNOTAVAIL as soon as they are bound;
#           without the option, and with SO_REUSEADDR, the result is the same
# with:     Linux (uname -r below), Python for the sockets; no other package; as root, in a separate network namespace
#
# Services of one enclave share the loopback interface, so one of them could block ingress for all. This project's own connections
# are therefore bound regardless of others (docs/security.md).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/probe.py" <<'PYTHON'
import errno, platform, socket

IP_BIND_ADDRESS_NO_PORT = 24
FIRST, LAST = 40000, 40015
PORTS = range(FIRST, LAST + 1)

with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as settings:
    settings.write(f"{FIRST} {LAST}")

servers = [socket.create_server(("127.0.0.1", port)) for port in (50000, 50001)]

def connect(server, late=False, reuse=False):
    client = socket.socket()
    if reuse:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if late:
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind(("127.0.0.1", 0))
    try:
        client.connect(server.getsockname())
        return client
    except OSError as error:
        client.close()
        return errno.errorcode[error.errno]

print("Linux", platform.release())
held = []
while not isinstance(client := connect(servers[0], late=True), str):
    held.append(client)
print("connections to one server until", client, "-", len(held))
elsewhere = connect(servers[1], late=True)
print("one more, to another server:", "connected" if not isinstance(elsewhere, str) else elsewhere)
shared = not isinstance(elsewhere, str)
for client in [*held, elsewhere]:
    if not isinstance(client, str):
        # The far end closes first, so that no port of the range is left in TIME_WAIT.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()

bound = [socket.socket() for _ in PORTS]
for port, owner in zip(PORTS, bound):
    owner.bind(("127.0.0.1", port))
print("with every port bound by another socket, and nothing connected:")
outcomes = {}
for name, options in {"plain": {}, "NO_PORT": {"late": True}, "REUSEADDR": {"reuse": True}}.items():
    outcome = connect(servers[1], **options)
    outcomes[name] = outcome if isinstance(outcome, str) else "connected"
    print(f"  {name}: {outcomes[name]}")
raise SystemExit(0 if shared and set(outcomes.values()) == {"EADDRNOTAVAIL"} else 1)
PYTHON
unshare --net sh -c 'ip link set lo up && exec python3 "$0"' "$work/probe.py"
