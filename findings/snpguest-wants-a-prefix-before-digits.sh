#!/usr/bin/env bash
# snpguest refuses the measurement in the form that its help describes: hexadecimal digits need the prefix 0x.
#
# expected: `snpguest verify attestation --measurement` takes what its help says, "hex, 48 bytes / 96 chars", and refuses anything else
#           as malformed
# seen:     96 digits are refused with "Expected 48 characters for Measurement, got 96": without 0x the text itself is compared with the
#           register, byte by byte. With 0x before the same digits the measurement is verified. The options for host data, report data
#           and the two keys' digests are read by the same code
# with:     snpguest 0.11.0; needs OpenSSL with its headers, python3 and xxd
#
# A script that compares a report with a predicted measurement writes 0x before it, and does not take the error for a mismatch. The
# report and its certificate are made here, with a key of our own: only the comparison is of interest.
set -euo pipefail

command -v xxd >/dev/null || { echo "needs xxd"; exit 2; }
pkg-config --exists openssl || { echo "needs the headers of OpenSSL (libssl-dev)"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo install --quiet --locked --debug --root "$work/tools" --target-dir "$work/target" snpguest@0.11.0
"$work/tools/bin/snpguest" --version

# A certificate of a chip's key with the TCB version 7, 0, 14, 72 (AMD 57230, section 3), signed by itself.
cat >"$work/certificate.conf" <<CONF
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = SEV-VCEK
[extensions]
1.3.6.1.4.1.3704.1.3.1 = ASN1:INTEGER:7
1.3.6.1.4.1.3704.1.3.2 = ASN1:INTEGER:0
1.3.6.1.4.1.3704.1.3.3 = ASN1:INTEGER:14
1.3.6.1.4.1.3704.1.3.8 = ASN1:INTEGER:72
CONF
mkdir "$work/certificates"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -days 1 -config "$work/certificate.conf" \
  -keyout "$work/key.pem" -out "$work/certificates/vcek.pem" 2>/dev/null

# A report of version 2 with that TCB version, measurement 22 22 …, signed (AMD 56860, table 23).
python3 - "$work" <<'PYTHON'
import subprocess
import sys

work = sys.argv[1]
report = bytearray(1184)
report[0], report[0x34] = 2, 1
report[0x0A] = 3
report[0x90:0xC0] = bytes([0x22] * 48)
report[0x1A0:0x1E0] = bytes([0xC1] * 64)
for offset in (0x38, 0x180, 0x1E0, 0x1F0):
    report[offset : offset + 8] = bytes([7, 0, 0, 0, 0, 0, 14, 72])
sign = ["openssl", "dgst", "-sha384", "-sign", f"{work}/key.pem"]
der = subprocess.run(sign, input=report[:0x2A0], capture_output=True, check=True).stdout
first = der.index(2) + 2
second = first + der[first - 1] + 2
for offset, number in ((0x2A0, der[first : second - 2]), (0x2E8, der[second:])):
    little = int.from_bytes(number, "big").to_bytes(72, "little")
    report[offset : offset + 72] = little
open(f"{work}/report.bin", "wb").write(report)
PYTHON

# verify MEASUREMENT: the last line of the output, or the error.
verify() {
  local arguments=(--processor-model milan --measurement "$1" "$work/certificates" "$work/report.bin")
  if "$work/tools/bin/snpguest" verify attestation "${arguments[@]}" >"$work/out" 2>"$work/err"; then
    tail -n 1 "$work/out"
  else
    sed -n 's/^ERROR: //p' "$work/err"
  fi
}

digits=$(xxd -s 0x90 -l 48 -p -c 48 "$work/report.bin")
echo "$digits: $(verify "$digits")"
echo "0x$digits: $(verify "0x$digits")"
[[ $(verify "$digits") == "Expected 48 characters for Measurement, got 96" ]] || { echo "changed: without 0x"; exit 1; }
[[ $(verify "0x$digits") == "Measurement verified successfully." ]] || { echo "changed: with 0x"; exit 1; }
echo "as described"
