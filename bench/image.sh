# shellcheck shell=bash
# The image part of scripts/bench: real images of three sizes, built, packed by hand, and booted with the root in both forms.
# Invariant: every figure is a median, and compared variants are measured alternately. It is sourced, never run.

IMAGE_SIZES=(small medium large)
# The zstd levels for packing by hand: APP_LEVEL of crates/image/src/ramdisk/mod.rs, and ZSTD_LEVEL of
# crates/image/src/erofs/codec.rs.
HAND_LEVELS=(6 9)
# Seconds that a response may take once an enclave is ready.
ANSWER_LIMIT=60

# The service: Python prints how much memory was in use when it started, and serves.
image_manifest() {
  cat <<'YAML'
version: 1
services:
  web:
    command:
      - /usr/bin/python3
      - -c
      - |
        memory = {line.split()[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
        print("used-kb", memory["MemTotal:"] - memory["MemAvailable:"], flush=True)
        import http.server
        http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
    env: {PATH: "/usr/bin:/bin"}
    ready: {tcp: 8000}
ingress: [8000]
YAML
}

# layers_of LAYOUT: prints the files of an image's layers, from the lowest up.
layers_of() {
  local manifest
  manifest=$(jq -r '.manifests[0].digest | ltrimstr("sha256:")' "$1/index.json")
  jq -r --arg blobs "$1/blobs/sha256/" '.layers[].digest | $blobs + ltrimstr("sha256:")' "$1/blobs/sha256/$manifest"
}

# by_hand LEVEL OUT LAYER…: unpacks the layers with tar, and packs them again with cpio and zstd. Run by `bash -c`, so it can use
# its arguments only.
by_hand() {
  local level=$1 out=$2 layer tree
  shift 2
  set -e -o pipefail
  tree=$(mktemp -d "$out.XXXXXX")
  for layer in "$@"; do tar -C "$tree" -xf "$layer"; done
  (cd "$tree" && find . | sort | cpio --quiet -o -H newc) | zstd -q -f -T0 -"$level" -o "$out"
  rm -rf "$tree"
}

# timed SIZE HOW RESULT COMMAND…: adds a line to builds: size, how, elapsed seconds, CPU seconds (all processes), the largest
# process in KiB, bytes of the result.
timed() {
  local size=$1 how=$2 result=$3
  shift 3
  command time -q -f '%e %U %S %M' -o "$WORK/cost" -- "$@" >"$WORK/timed.log" 2>&1 ||
    { cat "$WORK/timed.log" >&2 && die "$size: $how failed"; }
  printf '%s %s %s %s\n' "$size" "$how" "$(awk '{ print $1, $2 + $3, $4 }' "$WORK/cost")" "$(bytes_of "$result")" >>"$WORK/builds"
}

# bytes_of RESULT: prints the size of the part that goes into the enclave: a file, or ramdisk 2 of an enclave image.
bytes_of() {
  if [[ -d $1 ]]; then
    jq '.outputs["app.ramdisk"].size' <(part_of "$1" build.json)
  else
    stat -c %s "$1"
  fi
}

# build_round SIZE LAYOUT: builds every variant once.
build_round() {
  local size=$1 layout=$2 level layers build
  build=("$SLEEVE" build --image "oci:$layout" --manifest "$WORK/cloister.yaml")
  mapfile -t layers < <(layers_of "$layout")
  timed "$size" erofs "$WORK/$size.erofs" "${build[@]}" -o "$WORK/$size.erofs"
  timed "$size" plain "$WORK/$size.plain" "${build[@]}" -o "$WORK/$size.plain" --plain-root
  for level in "${HAND_LEVELS[@]}"; do
    timed "$size" "hand-$level" "$WORK/hand" \
      bash -c "$(declare -f by_hand); by_hand \"\$@\"" by_hand "$level" "$WORK/hand" "${layers[@]}"
  done
}

# processor_ms PID: prints the CPU time that a process has used so far, in milliseconds.
processor_ms() {
  awk -v tick="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1000 / tick }' "/proc/$1/stat"
}

# boot SIZE FORM: adds a line to boots: size, form, milliseconds to PID 1 (the guest's clock), to ready, to the first response, of
# QEMU's CPU time, of the sleeve's, KiB in use when the service started, and KiB of memory of the enclave.
boot() {
  local size=$1 form=$2 name=image-$2 port=$((20000 + RANDOM % 20000)) started answered details
  started=$(date +%s%N)
  "$SLEEVE" run "$WORK/$size.$form" --detach --name "$name" --publish "127.0.0.1:$port:8000" >"$WORK/boot.log" 2>&1 ||
    { cat "$WORK/boot.log" >&2 && die "$size, $form: the enclave did not boot"; }
  curl -fsS -o "$WORK/answer" --max-time "$ANSWER_LIMIT" "http://127.0.0.1:$port/"
  answered=$(($(date +%s%N) - started))
  details=$("$SLEEVE" inspect "$name" --json)
  jq -r --arg size "$size" --arg form "$form" --argjson answered "$answered" \
    --argjson qemu "$(processor_ms "$(jq .processes.qemu <<<"$details")")" \
    --argjson sleeve "$(processor_ms "$(jq .processes.sleeve <<<"$details")")" \
    --argjson used "$("$SLEEVE" logs "$name" 2>&1 | awk '/used-kb/ { print $NF; exit }')" \
    '[$size, $form, .status.boot[0].at_us / 1000, .ready_ms - .created_ms, $answered / 1e6, $qemu, $sleeve, $used, .memory / 1024]
     | join(" ")' <<<"$details" >>"$WORK/boots"
  "$SLEEVE" stop "$name" >/dev/null 2>&1
  "$SLEEVE" rm "$name" >/dev/null 2>&1
}

# median FILE SIZE HOW COLUMN: prints the median of a column.
median() {
  awk -v size="$2" -v how="$3" -v column="$4" '$1 == size && $2 == how { print $column }' "$1" | sort -g |
    awk '{ value[NR] = $1 } END { print NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'
}

# calculate FORMAT EXPRESSION: evaluates it with awk.
calculate() {
  awk "BEGIN { printf \"$1\", $2 }"
}

build_row() {
  local size=$1 how=$2 label=$3 file=$WORK/builds
  printf '| %s | %s | %.1f | %.1f | %s | %s |\n' "$size" "$label" "$(median "$file" "$size" "$how" 3)" \
    "$(median "$file" "$size" "$how" 4)" "$(calculate %.0f "$(median "$file" "$size" "$how" 5) / 1024")" \
    "$(calculate %.1f "$(median "$file" "$size" "$how" 6) / 1e6")"
}

report_builds() {
  local size level
  printf '| image | how | s | CPU, s | largest process, MiB | result, MB |\n|---|---|---|---|---|---|\n'
  for size in "${IMAGE_SIZES[@]}"; do
    build_row "$size" erofs "**Cloister, EROFS**"
    build_row "$size" plain "Cloister, cpio"
    for level in "${HAND_LEVELS[@]}"; do
      build_row "$size" "hand-$level" "by hand: tar, cpio, zstd -T0 -$level"
    done
  done
}

report_boots() {
  local size form column file=$WORK/boots image used
  printf '\n| image | root | ramdisk 2, MB | PID 1, ms | ready, ms | first answer, ms | QEMU, CPU ms | sleeve, CPU ms |'
  printf ' given, MiB | in use, MiB | in use / ramdisk 2 |\n|---|---|---|---|---|---|---|---|---|---|---|\n'
  for size in "${IMAGE_SIZES[@]}"; do
    for form in erofs plain; do
      image=$(median "$WORK/builds" "$size" "$form" 6)
      printf '| %s | %s | %s ' "$size" "$form" "$(calculate %.1f "$image / 1e6")"
      for column in 3 4 5 6 7; do printf '| %.0f ' "$(median "$file" "$size" "$form" "$column")"; done
      used=$(median "$file" "$size" "$form" 8)
      printf '| %s | %s | %s |\n' "$(calculate %.0f "$(median "$file" "$size" "$form" 9) / 1024")" \
        "$(calculate %.0f "$used / 1024")" "$(calculate %.2f "$used * 1024 / $image")"
    done
  done
}

bench_image() {
  local rounds=${1:-3} round size form
  need_packages "time: measures the memory of a build" "cpio: packs by hand" "zstd: the same" \
    "curl: sends requests to the enclave" "jq: reads Cloister's JSON"
  "$ROOT/scripts/tools" qemu
  SLEEVE=$("$ROOT/scripts/build")/bin/host-sleeve
  WORK=$(mktemp -d "$(cache_dir tmp)/bench.XXXXXX")
  export CLOISTER_RUNTIME_DIR=$WORK/run
  # shellcheck disable=SC2064 # expanded now, not when the trap runs
  trap "rm -rf '$WORK'" EXIT
  image_manifest >"$WORK/cloister.yaml"
  for ((round = 1; round <= rounds; round++)); do
    for size in "${IMAGE_SIZES[@]}"; do
      log "round $round of $rounds: $size; load of this machine: $(cut -d' ' -f1-3 /proc/loadavg)"
      build_round "$size" "$("$ROOT/scripts/inputs" "$size")"
      for form in erofs plain; do boot "$size" "$form"; done
    done
  done
  report_builds
  report_boots
}
