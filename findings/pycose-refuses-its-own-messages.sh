#!/usr/bin/env bash
# pycose does not read the messages that it writes, with the version of cbor2 that pip installs next to it.
#
# expected: a tagged COSE_Sign1 that pycose has encoded is decoded by pycose, as its README shows; pycose accepts any version of cbor2
# seen:     `Sign1Message.decode` raises "Bytes cannot be decoded as COSE message": pycose wants a list and dictionaries in the tag, and
#           cbor2 6 decodes what is in a tag as values that cannot be changed, such as a tuple. With cbor2 5 it decodes, and so it does
#           with cbor2 6 if the tag's byte is removed and the array is passed to `from_cose_obj`
# with:     pycose 1.1.0 with cbor2 6.3.0, and with 5.9.0
#
# A client in Python that verifies documents with pycose pins cbor2, or removes the tag itself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/message.py" <<'PYTHON'
import cbor2
from pycose.algorithms import Es384
from pycose.headers import Algorithm
from pycose.keys import EC2Key
from pycose.keys.curves import P384
from pycose.messages import Sign1Message

key = EC2Key.generate_key(crv=P384)
message = Sign1Message(phdr={Algorithm: Es384}, payload=b"payload")
message.key = key
encoded = message.encode()


def verified(decoded):
    decoded.key = key
    return decoded.verify_signature()


try:
    tagged = verified(Sign1Message.decode(encoded))
except TypeError as error:
    tagged = str(error)
untagged = verified(Sign1Message.from_cose_obj(cbor2.loads(encoded[1:]), True))
print(f"tagged: {tagged}; untagged: {untagged}")
PYTHON

# said CBOR2: what is printed with this version of cbor2.
said() {
  python3 -m venv "$work/$1"
  "$work/$1/bin/pip" install --quiet --disable-pip-version-check pycose==1.1.0 "cbor2==$1"
  "$work/$1/bin/python" "$work/message.py"
}

python3 --version
new=$(said 6.3.0) old=$(said 5.9.0)
echo "cbor2 6.3.0: $new"
echo "cbor2 5.9.0: $old"
[[ $old == "tagged: True; untagged: True" ]] || { echo "changed: with cbor2 5.9.0"; exit 1; }
[[ $new == "tagged: Bytes cannot be decoded as COSE message; untagged: True" ]] || { echo "changed: with cbor2 6.3.0"; exit 1; }
echo "as described"
