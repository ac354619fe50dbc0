# shellcheck shell=bash
# The attestation part of scripts/bench: evidence of booted enclaves per platform, handshakes with and without evidence in the
# certificate, and the memory of the attestor and the terminator afterwards. Invariant: every figure is a median or a quantile, and
# what is compared is measured alternately. It is sourced, never run.

# Enclaves: the sleeve's backend for each, and the platform that it has. The second needs scripts/qemu-nitro.
ATTESTATION_PLATFORMS=("qemu virtual" "qemu-nitro nitro")

# Rounds of handshakes for each round of requests: one takes some 40 ms.
HANDSHAKE_ROUNDS=20

# Two services, since one may have eight connections to the attestor at once.
attestation_manifest() {
  cat <<'YAML'
version: 1
services:
  one: {command: [/bin/attestation-guest, '8080'], user: '1000:1000', ready: {tcp: 8080}}
  two: {command: [/bin/attestation-guest, '8081'], user: '1000:1000', ready: {tcp: 8081}}
ingress:
  - {port: 80, service: one, target: 8080}
  - {port: 81, service: two, target: 8081}
attestation: {services: {one: [evidence], two: [evidence]}, port: 443}
YAML
}

# attestation_boot BACKEND PLATFORM: boots an enclave named after its platform, and adds PLATFORM,FIRST,SECOND,TLS to ENCLAVES.
attestation_boot() {
  local backend=$1 platform=$2 port=$((20000 + RANDOM % 20000)) attempt
  "$SLEEVE" run "$WORK/app" --detach --backend "$backend" --name "$platform" --publish "127.0.0.1:$port:80" \
    --publish "127.0.0.1:$((port + 1)):81" --publish "127.0.0.1:$((port + 2)):443" >"$WORK/boot.log" 2>&1 ||
    { cat "$WORK/boot.log" >&2 && die "the enclave on $platform did not boot"; }
  # On `virtual` the sleeve connects its module within two seconds.
  for attempt in {1..30}; do
    curl -sk --max-time 10 "https://127.0.0.1:$((port + 2))/.well-known/cloister/ready" | grep -q '"ready"' && break
    ((attempt < 30)) || die "the enclave on $platform has no evidence" "host-sleeve logs $platform says why"
    sleep 1
  done
  ENCLAVES+=("$platform,$port,$((port + 1)),$((port + 2))")
}

# attestation_memory PLATFORM: prints the rows of its servants: memory of their cgroups, the kernel's part for their sockets included.
attestation_memory() {
  "$SLEEVE" stats "$1" --json | jq -r --arg platform "$1" '.[0].servants[] | select(.name == "@attestor" or .name == "@terminator") |
    "| \($platform) | \(.name) | \(.memory / 1048576 * 100 | round / 100) | \(.memory_peak / 1048576 * 100 | round / 100) |"'
}

attestation_stop() {
  local enclave
  for enclave in "${ENCLAVES[@]}"; do "$SLEEVE" stop "${enclave%%,*}" >/dev/null 2>&1 || true; done
  rm -rf "$WORK"
}

bench_attestation() {
  local rounds=${1:-9} dist guest item
  need_packages "curl: asks enclaves whether they have evidence" "jq: reads Cloister's JSON"
  "$ROOT/scripts/tools" qemu
  dist=$("$ROOT/scripts/build")
  SLEEVE=$dist/bin/host-sleeve
  guest=$(guest_half attestation-guest)
  cargo build --quiet --locked --release -p cloister-bench --bin attestation >&2
  WORK=$(mktemp -d "$(cache_dir tmp)/bench.XXXXXX")
  export CLOISTER_RUNTIME_DIR=$WORK/run
  ENCLAVES=()
  trap attestation_stop EXIT
  install -D -m 0755 "$guest" "$WORK/root/bin/attestation-guest"
  attestation_manifest >"$WORK/cloister.yaml"
  "$SLEEVE" build --image "dir:$WORK/root" --manifest "$WORK/cloister.yaml" -o "$WORK/app" >&2
  log "load of this machine: $(cut -d' ' -f1-3 /proc/loadavg); other load makes every figure worse"
  "$ROOT/target/release/attestation" handshakes "$ROOT/target/$GUEST_TARGET/guest/cloister-terminator" "$((rounds * HANDSHAKE_ROUNDS))"
  for item in "${ATTESTATION_PLATFORMS[@]}"; do
    # shellcheck disable=SC2086 # two words
    if [[ $item == qemu-nitro* && -z $("$ROOT/scripts/qemu-nitro" --if-built) ]]; then
      log "the emulator of AWS Nitro is not built: without that platform; scripts/qemu-nitro builds it"
    else
      attestation_boot $item
    fi
  done
  printf '\n'
  "$ROOT/target/release/attestation" evidence "$rounds" "${ENCLAVES[@]}"
  printf '\n| platform | servant | memory, MiB | at most, MiB |\n|---|---|---|---|\n'
  for item in "${ENCLAVES[@]}"; do attestation_memory "${item%%,*}"; done
  log "load of this machine at the end: $(cut -d' ' -f1-3 /proc/loadavg)"
}
