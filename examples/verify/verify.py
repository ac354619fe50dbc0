#!/usr/bin/env python3
"""Verifies a document of AWS Nitro, or of the platform virtual, as docs/evidence.md specifies it.

    verify.py FILE [--nonce HEX [--public-key FILE] [--user-data FILE]] [--measurements FILE] [--event-log FILE]
                   [--trust-root FILE --allow-virtual] [--max-age SECONDS] [--at UNIXTIME]

An example of a verifier that shares no code with Cloister: it needs the package `cryptography` and nothing else. What is not
required is not checked, and listed as such; `host-sleeve verify` asks for every requirement. A nonce requires the binding, and
each of nonce, measurements and event log requires the check of the events; default: the log of an enclave that has only booted.
Exit code: 0 if everything that was required holds, 1 if not, 2 if the verification could not be made.
"""

import argparse
import hashlib
import json
import struct
import sys
import time
from datetime import timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import SignatureAlgorithmOID

import eventlog

AWS_ROOT = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
DOCUMENT_LIMIT = 16384
COVERS = {
    0: "kernel, command line and all ramdisks",
    1: "kernel, command line and ramdisk 1: the operating system",
    2: "ramdisk 2: the application and its manifest",
    8: "the signing certificate",
}


class Refused(Exception):
    """Why a check does not hold."""


def require(condition, why):
    if not condition:
        raise Refused(why)


# CBOR, as far as documents use it. A library would accept what the specification refuses: a key twice, tags, indefinite lengths.
class Reader:
    def __init__(self, data, indefinite_maps):
        self.data, self.at, self.indefinite_maps = data, 0, indefinite_maps

    def take(self, count):
        require(count <= len(self.data) - self.at, "truncated CBOR")
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def head(self):
        first = self.take(1)[0]
        major, short = first >> 5, first & 31
        if short < 24:
            return major, short
        if short in (24, 25, 26, 27):
            return major, int.from_bytes(self.take(1 << (short - 24)), "big")
        require(short == 31, "reserved length in CBOR")
        return major, None

    def item(self, depth=0):
        require(depth <= 4, "CBOR is nested too deeply")
        is_null = self.data[self.at : self.at + 1] == b"\xf6"
        major, value = self.head()
        if is_null:
            return None
        if major == 5:
            return self.map(value, depth)
        require(value is not None, "a string or an array of indefinite length")
        if major == 0:
            return value
        if major == 1:
            return -1 - value
        if major == 2:
            return self.take(value)
        if major == 3:
            try:
                return self.take(value).decode()
            except UnicodeDecodeError:
                raise Refused("text is not UTF-8") from None
        require(major == 4, "a kind of CBOR item that documents do not contain")
        return [self.item(depth + 1) for _ in range(value)] if value <= 64 else require(False, "a long array")

    def map(self, count, depth):
        require(count is not None or self.indefinite_maps, "a map of indefinite length")
        found = {}
        while count is None or len(found) < count:
            if count is None and self.data[self.at : self.at + 1] == b"\xff":
                self.at += 1
                break
            key = self.item(depth + 1)
            require(isinstance(key, (int, str)), "a key that is neither a number nor text")
            require(key not in found, f"the key {key!r} twice")
            found[key] = self.item(depth + 1)
            require(len(found) <= 64, "a map with more than 64 entries")
        return found


def one_item(data, indefinite_maps=False):
    reader = Reader(data, indefinite_maps)
    item = reader.item()
    require(reader.at == len(data), "bytes after the CBOR item")
    return item


def envelope(data):
    require(len(data) <= DOCUMENT_LIMIT, f"more than {DOCUMENT_LIMIT} bytes")
    # Tag 18 is optional.
    parts = one_item(data[1:] if data[:1] == b"\xd2" else data)
    is_sign1 = isinstance(parts, list) and len(parts) == 4
    require(is_sign1 and all(isinstance(parts[n], bytes) for n in (0, 2, 3)), "not a COSE_Sign1")
    require(isinstance(parts[1], dict), "not a COSE_Sign1")
    return parts


def header(protected, unprotected):
    require(one_item(protected) == {1: -35}, "the protected header is not ES384 alone")
    require(unprotected == {}, "the unprotected header is not empty")


def fields(payload):
    found = one_item(payload, indefinite_maps=True)
    require(isinstance(found, dict), "the payload is not a map")
    needed = {"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"}
    optional = {"public_key": (1, 1024), "user_data": (0, 512), "nonce": (0, 512)}
    require(needed <= set(found) <= needed | set(optional), "fields are missing or unknown")

    def is_bytes(value, shortest, longest):
        return isinstance(value, bytes) and shortest <= len(value) <= longest

    module = found["module_id"]
    require(isinstance(module, str) and 1 <= len(module) <= 256, "module_id")
    require(all(" " <= letter <= "~" for letter in module), "module_id is not printable")
    require(found["digest"] == "SHA384", "digest is not SHA384")
    require(isinstance(found["timestamp"], int) and found["timestamp"] > 0, "timestamp")
    pcrs = found["pcrs"]
    require(isinstance(pcrs, dict) and 1 <= len(pcrs) <= 32, "pcrs")
    for number, value in pcrs.items():
        is_number = isinstance(number, int) and 0 <= number <= 31
        require(is_number and isinstance(value, bytes) and len(value) in (32, 48, 64), f"PCR{number}")
    require(is_bytes(found["certificate"], 1, 1024), "certificate")
    bundle = found["cabundle"]
    require(isinstance(bundle, list) and 1 <= len(bundle) <= 7, "cabundle")
    require(all(is_bytes(part, 1, 1024) for part in bundle), "cabundle")
    for name, (shortest, longest) in optional.items():
        value = found.setdefault(name, None)
        require(value is None or is_bytes(value, shortest, longest), name)
    return found


def period(certificate):
    """From when until when a certificate is valid, in seconds since 1970."""
    if hasattr(certificate, "not_valid_before_utc"):
        ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    else:
        ends = certificate.not_valid_before, certificate.not_valid_after
    return [end.replace(tzinfo=timezone.utc).timestamp() for end in ends]


def extension(certificate, kind, name):
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        raise Refused(f"a certificate without {name}") from None


def chain(certificates):
    """From the root to the signer; each is the issuer of the next, and the root of itself."""
    for place, certificate in enumerate(certificates):
        issuer = certificates[max(place - 1, 0)]
        require(certificate.issuer == issuer.subject, f"certificate {place} was issued by another authority")
        earlier = [other.subject for other in certificates[:place]]
        require(certificate.subject not in earlier, f"certificate {place} has the name of an earlier one")
        algorithm = certificate.signature_algorithm_oid
        require(algorithm == SignatureAlgorithmOID.ECDSA_WITH_SHA384, f"the algorithm of certificate {place}")
        key = certificate.public_key()
        is_p384 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
        require(is_p384, f"the key of certificate {place} is not on P-384")
        try:
            message, signature = certificate.tbs_certificate_bytes, certificate.signature
            issuer.public_key().verify(signature, message, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            raise Refused(f"the signature of certificate {place}") from None
        known = (x509.BasicConstraints, x509.KeyUsage)
        unknown = [found.oid for found in certificate.extensions if found.critical and not isinstance(found.value, known)]
        require(not unknown, f"an unknown critical extension in certificate {place}")
        usage = extension(certificate, x509.KeyUsage, "a key usage").value
        if place + 1 == len(certificates):
            is_authority = any(
                isinstance(found.value, x509.BasicConstraints) and found.value.ca for found in certificate.extensions
            )
            require(not is_authority and usage.digital_signature, "the signer's certificate is not one for signing")
        else:
            basic = extension(certificate, x509.BasicConstraints, "basic constraints")
            require(basic.critical and basic.value.ca and usage.key_cert_sign, f"certificate {place} is no authority")
            below = len(certificates) - place - 2
            limit = basic.value.path_length
            require(limit is None or below <= limit, f"more authorities below certificate {place} than it allows")


def cbor_bytes(data):
    """A byte string in CBOR, as in a Sig_structure (RFC 9052, 4.4)."""
    if len(data) < 24:
        return bytes([0x40 | len(data)]) + data
    if len(data) < 256:
        return bytes([0x58, len(data)]) + data
    return b"\x59" + struct.pack(">H", len(data)) + data


def signature(signer, protected, payload, raw):
    require(len(raw) == 96, "the signature does not have 96 bytes")
    message = b"\x84\x6aSignature1" + cbor_bytes(protected) + b"\x40" + cbor_bytes(payload)
    pair = utils.encode_dss_signature(int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big"))
    try:
        signer.public_key().verify(pair, message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Refused("it was not made with the signer's key") from None


def is_virtual(found):
    return found["module_id"].startswith("virtual-")


def platform(found, allow_virtual):
    """The name of the platform."""
    require(allow_virtual or not is_virtual(found), "virtual: no hardware protects this enclave")
    return "VIRTUAL (no hardware protects this enclave)" if is_virtual(found) else "AWS Nitro Enclaves"


def root(found, trusted):
    digest = hashlib.sha256(found["cabundle"][0]).hexdigest()
    require(digest != AWS_ROOT or not is_virtual(found), "the root is of another platform")
    require(digest in (trusted if is_virtual(found) else [AWS_ROOT]), f"the root {digest} is not trusted for this platform")


def validity(ders, now):
    """The certificates, if all of them are valid."""
    certificates = [x509.load_der_x509_certificate(der) for der in ders]
    for place, certificate in enumerate(certificates):
        start, end = period(certificate)
        require(start <= now <= end, f"certificate {place} is not valid at {now}")
    return certificates


def debug(pcrs):
    for number in (0, 1, 2):
        require(any(pcrs.get(number, b"")), f"debug mode: PCR{number} is all zeros or missing")


def freshness(timestamp, now, max_age):
    require(timestamp / 1000 - now <= 30, "it was made in the future")
    require(now - timestamp / 1000 <= max_age, f"it is older than {max_age} s")


def binding(found, required):
    require(len(required.key) <= 1024 and len(required.user_data) <= 65536, "the required values are too long to be bound")
    expected = eventlog.report_data(required.nonce, required.key, required.log, required.user_data)
    require(found["user_data"] == expected, "the report data binds other values")
    require((found["public_key"] or b"") == required.key, "another public key")


def measurements(pcrs, expected):
    for number, value in expected.items():
        found = pcrs.get(number, b"").hex()
        require(found == value, f"PCR{number} is {found}, expected {value}: it covers {COVERS[number]}")


def events(pcrs, log, is_bound):
    """A document contains locked registers only: events of others need the binding, which confirms the whole log."""
    has_booted = log[:1] == [eventlog.BOOT] and all(register != 16 for register, _ in log[1:])
    require(has_booted, "the log does not begin with the boot, or has another event in its register")
    require(16 in pcrs, "PCR16 is missing: the boot was not complete")
    for number in range(16, 32):
        expected = eventlog.replayed(log, number)
        require(pcrs.get(number, expected) == expected, f"PCR{number} contains other events than the log")
        is_confirmed = number in pcrs or is_bound or not any(expected)
        require(is_confirmed, f"the log has events for PCR{number}, which the document lacks")
    missing = ", ".join(f"PCR{number}" for number in (17, 18) if number not in pcrs)
    return None if is_bound or not missing else f"the document lacks {missing}, whose events may be missing"


def references(path):
    document = json.loads(read(path))
    require(document["version"] == 1, "measurements of another version")
    pcrs = (document.get("nitro") or document["virtual"])["pcrs"]
    values = {0: pcrs["pcr0"], 1: pcrs["pcr1"], 2: pcrs["pcr2"], 8: pcrs.get("pcr8") or "00" * 48}
    require(all(len(bytes.fromhex(value)) == 48 for value in values.values()), "a register does not have 48 bytes")
    require(any(any(bytes.fromhex(value)) for value in values.values()), "all registers are zeros")
    return {number: value.lower() for number, value in values.items()}


class Required:
    """What a caller requires; files and values that cannot be used end the program before anything is verified."""

    def __init__(self, parser, options):
        if options.nonce is None and (options.public_key or options.user_data):
            parser.error("--public-key and --user-data are checked together with a nonce only: add --nonce")
        try:
            self.nonce = None if options.nonce is None else bytes.fromhex(options.nonce)
            self.key, self.user_data = (read(path) if path else b"" for path in (options.public_key, options.user_data))
            self.measurements = references(options.measurements) if options.measurements else None
            self.log = eventlog.entries(read(options.event_log)) if options.event_log else [eventlog.BOOT]
            self.roots = [hashlib.sha256(read(path)).hexdigest() for path in options.trust_root]
        except (OSError, LookupError, TypeError, AttributeError, ValueError, Refused) as why:
            parser.error(f"an argument cannot be used: {type(why).__name__}: {why}")
        self.events = any(value is not None for value in (self.nonce, self.measurements, options.event_log))
        self.allow_virtual, self.max_age = options.allow_virtual, options.max_age


CHECKS = (
    "format header fields platform root validity chain signature debug freshness nonce binding measurements events".split()
)


class Verdict:
    def __init__(self):
        self.outcomes = {}

    def record(self, name, outcome, text=None):
        self.outcomes[name] = outcome
        print(f"{outcome}  {name}" + (f": {text}" if text else ""))

    def check(self, name, function, *arguments):
        """Makes a check; its value, or `None` if it fails."""
        try:
            value = function(*arguments)
            self.record(name, "pass", value if isinstance(value, str) else None)
            return True if value is None else value
        except Refused as why:
            reason = str(why)
        except Exception as why:  # The library raises many kinds for malformed certificates; whatever it is, it is no pass.
            reason = f"malformed: {why}".splitlines()[0][:200]
        self.record(name, "FAIL", reason)
        return None

    def check_if(self, is_required, name, function, *arguments):
        if is_required:
            self.check(name, function, *arguments)
        else:
            self.record(name, "n/a ", "not required")

    def result(self):
        """Lists the checks that were not made. Whether all that were made hold, and the verdict in a line."""
        for name in CHECKS:
            if name not in self.outcomes:
                self.record(name, "n/a ", "not checked because of an earlier failure")
        if "FAIL" in self.outcomes.values():
            return False, "NOT VERIFIED"
        skipped = [name for name, outcome in self.outcomes.items() if outcome == "n/a "]
        return True, f"AUTHENTIC, but not checked: {', '.join(skipped)}" if skipped else "VERIFIED"


def authentic(verdict, data, required, now):
    """The checks that decide whether the document is authentic; each needs those before it."""
    parts = verdict.check("format", envelope, data)
    if not parts or not verdict.check("header", header, parts[0], parts[1]):
        return None
    found = verdict.check("fields", fields, parts[2])
    if not found or not verdict.check("platform", platform, found, required.allow_virtual):
        return None
    if not verdict.check("root", root, found, required.roots):
        return None
    ders = found["cabundle"] + [found["certificate"]]
    certificates = verdict.check("validity", validity, ders, now)
    if not certificates or not verdict.check("chain", chain, certificates):
        return None
    if not verdict.check("signature", signature, certificates[-1], parts[0], parts[2], parts[3]):
        return None
    return found


def nonce_is(found, nonce):
    require(16 <= len(nonce) <= 64, "the required nonce does not have 16 to 64 bytes")
    require(found["nonce"] == nonce, "another nonce")


def verify(data, required, now):
    verdict = Verdict()
    found = authentic(verdict, data, required, now)
    if found:
        pcrs, has_nonce = found["pcrs"], required.nonce is not None
        verdict.check("debug", debug, pcrs)
        verdict.check("freshness", freshness, found["timestamp"], now, required.max_age)
        verdict.check_if(has_nonce, "nonce", nonce_is, found, required.nonce)
        verdict.check_if(has_nonce, "binding", binding, found, required)
        verdict.check_if(required.measurements is not None, "measurements", measurements, pcrs, required.measurements)
        verdict.check_if(required.events, "events", events, pcrs, required.log, has_nonce)
    is_accepted, result = verdict.result()
    return is_accepted, f"{result}: {platform(found, True)}" if found else result


def read(path):
    with open(path, "rb") as source:
        return source.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", metavar="FILE")
    parser.add_argument("--nonce", metavar="HEX")
    for name in ("public-key", "user-data", "measurements", "event-log"):
        parser.add_argument(f"--{name}", metavar="FILE")
    parser.add_argument("--trust-root", metavar="FILE", action="append", default=[])
    parser.add_argument("--allow-virtual", action="store_true")
    parser.add_argument("--max-age", metavar="SECONDS", type=int, default=60)
    parser.add_argument("--at", metavar="UNIXTIME", type=int)
    options = parser.parse_args()
    required = Required(parser, options)
    try:
        document = read(options.document)
    except OSError as why:
        parser.error(str(why))
    is_accepted, result = verify(document, required, int(time.time()) if options.at is None else options.at)
    print(result, end="")
    print("" if options.at is None else f", as of {options.at}, not now")
    return 0 if is_accepted else 1


if __name__ == "__main__":
    sys.exit(main())
