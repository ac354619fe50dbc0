# shellcheck shell=bash
# The image benchmark of scripts/bench: images of three sizes, built, packed by hand, and booted in both forms of the root.
# Its law: every figure is the median of its rounds, and both sides of a comparison are measured in turns. It is sourced.

IMAGE_SIZES=(small medium large)
# What the by-hand packing uses: the level of our own archive form (APP_LEVEL in crates/image/src/ramdisk/mod.rs).
HAND_LEVEL=6
# Seconds until a guest must have answered.
ANSWER_LIMIT=120

# The service: says how much memory was free when it began, and serves HTTP.
image_manifest() {
  cat <<'YAML'
version: 1
services:
  web:
    command:
      - /usr/bin/python3.11
      - -c
      - |
        import http.server
        memory = {line.split()[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
        print("used-kb", memory["MemTotal:"] - memory["MemAvailable:"], flush=True)
        http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
    env: {PATH: "/usr/bin:/bin"}
    ready: {tcp: 8000}
ingress: [8000]
YAML
}

# median FILE COLUMN: of numbers.
median() {
  awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# timed FILE COMMAND…: appends seconds and peak kilobytes.
timed() {
  local out=$1
  shift
  command time -f '%e %M' -a -o "$out" "$@"
}

# The layers of an input, unpacked and packed again with the tools of the distribution: to the file $2.
by_hand() {
  local layers=$1 out=$2 kind=$3 root
  root=$(mktemp -d "$WORK/hand.XXXXXX")
  while read -r layer; do tar -C "$root" -xf "$layer"; done <"$layers"
  case $kind in
    cpio) (cd "$root" && find . | sort | cpio --quiet -o -H newc) | zstd -q -f -"$HAND_LEVEL" -T0 -o "$out" ;;
    tar) tar -C "$root" --sort=name -cf - . | zstd -q -f -"$HAND_LEVEL" -T0 -o "$out" ;;
  esac
  rm -rf "$root"
}

# layers_of IMAGE: the layer files of an OCI layout, in order.
layers_of() {
  local image=$1 manifest
  manifest=$(sed -n 's/.*"digest":"sha256:\([0-9a-f]*\)".*/\1/p' "$image/index.json" | head -n 1)
  grep -o '"layers":.*' "$image/blobs/sha256/$manifest" | grep -o 'sha256:[0-9a-f]*' | sed "s|^sha256:|$image/blobs/sha256/|"
}

# One boot of an enclave image: milliseconds to the first answer, to PID 1, kilobytes used when the service began.
boot_image() {
  local app=$1 out=$2 port start now name=bench-$$
  port=$((20000 + RANDOM % 20000))
  start=$(date +%s%N)
  "$SLEEVE" run "$app" --detach --name "$name" --memory "$MEMORY" --publish "127.0.0.1:$port:8000" >&2
  curl -s -o /dev/null --retry "$ANSWER_LIMIT" --retry-delay 1 --retry-all-errors --max-time "$ANSWER_LIMIT" \
    "http://127.0.0.1:$port/"
  now=$(date +%s%N)
  printf '%s %s %s\n' "$(((now - start) / 1000000))" \
    "$("$SLEEVE" inspect "$name" --json | grep -o '"at_us": *[0-9]*' | head -n 1 | grep -o '[0-9]*$' | awk '{ printf "%d", $1 / 1000 }')" \
    "$("$SLEEVE" logs "$name" | awk '/used-kb/ { print $NF }')" >>"$out"
  "$SLEEVE" stop "$name" >/dev/null 2>&1
  "$SLEEVE" rm "$name" >/dev/null 2>&1
}

# app_bytes APP: the size of ramdisk 2.
app_bytes() {
  "$SLEEVE" inspect "$1" --json | tr ',{' '\n\n' | grep -A4 '"app.ramdisk"' | grep -o '"size": *[0-9]*\|"bytes": *[0-9]*' | head -n 1 | grep -o '[0-9]*$'
}

measure_builds() {
  local size=$1 image=$2 rounds=$3 round
  for ((round = 1; round <= rounds; round++)); do
    say "$size: builds, round $round of $rounds"
    timed "$WORK/$size.erofs" "$SLEEVE" build --image "oci:$image" --manifest "$WORK/cloister.yaml" -o "$WORK/$size.app" 2>/dev/null
    timed "$WORK/$size.plain" "$SLEEVE" build --plain-root --image "oci:$image" --manifest "$WORK/cloister.yaml" -o "$WORK/$size.plain-app" 2>/dev/null
    timed "$WORK/$size.cpio" bash -c "$(declare -f by_hand); WORK=$WORK HAND_LEVEL=$HAND_LEVEL; by_hand $WORK/$size.layers $WORK/$size.cpio.zst cpio"
    timed "$WORK/$size.tar" bash -c "$(declare -f by_hand); WORK=$WORK HAND_LEVEL=$HAND_LEVEL; by_hand $WORK/$size.layers $WORK/$size.tar.zst tar"
  done
}

measure_boots() {
  local size=$1 rounds=$2 round
  for ((round = 1; round <= rounds; round++)); do
    say "$size: boots, round $round of $rounds"
    boot_image "$WORK/$size.app" "$WORK/$size.erofs-boot"
    boot_image "$WORK/$size.plain-app" "$WORK/$size.plain-boot"
  done
}

build_row() {
  local size=$1 what=$2 file=$3 bytes=$4
  printf '| %s | %s | %s | %d | %.1f |\n' "$size" "$what" "$(median "$file" 1)" "$(($(median "$file" 2 | cut -d. -f1) / 1024))" \
    "$(awk -v b="$bytes" 'BEGIN { print b / 1e6 }')"
}

report_images() {
  local size form
  printf '| image | how | build, s | peak memory, MiB | result, MB |\n|---|---|---|---|---|\n'
  for size in "${IMAGE_SIZES[@]}"; do
    build_row "$size" "Cloister, EROFS" "$WORK/$size.erofs" "$(app_bytes "$WORK/$size.app")"
    build_row "$size" "Cloister, cpio" "$WORK/$size.plain" "$(app_bytes "$WORK/$size.plain-app")"
    build_row "$size" "by hand, tar + cpio + zstd" "$WORK/$size.cpio" "$(stat -c %s "$WORK/$size.cpio.zst")"
    build_row "$size" "by hand, tar + tar + zstd" "$WORK/$size.tar" "$(stat -c %s "$WORK/$size.tar.zst")"
  done
  printf '\n| image | root | first answer, ms | PID 1 began, ms | used when the service began, MiB |\n|---|---|---|---|---|\n'
  for size in "${IMAGE_SIZES[@]}"; do
    for form in erofs plain; do
      [[ -e $WORK/$size.$form-boot ]] || continue
      printf '| %s | %s | %s | %s | %d |\n' "$size" "$form" "$(median "$WORK/$size.$form-boot" 1)" \
        "$(median "$WORK/$size.$form-boot" 2)" "$(($(median "$WORK/$size.$form-boot" 3 | cut -d. -f1) / 1024))"
    done
  done
}

bench_image() {
  local rounds=${1:-3} size image
  MEMORY=${2:-6GiB}
  need_packages "time: peak memory of a build" "cpio: packs by hand" "zstd: the same" "curl: asks the guest"
  "$ROOT/scripts/tools" qemu
  SLEEVE=$("$ROOT/scripts/build")/bin/host-sleeve
  WORK=$(mktemp -d "$(cache_dir tmp)/bench.XXXXXX")
  export CLOISTER_RUNTIME_DIR=$WORK/run
  # shellcheck disable=SC2064 # the folder's name is known now, not at the end
  trap "rm -rf '$WORK'" EXIT
  image_manifest >"$WORK/cloister.yaml"
  for size in "${IMAGE_SIZES[@]}"; do
    image=$("$ROOT/scripts/inputs" "$size")
    layers_of "$image" >"$WORK/$size.layers"
    measure_builds "$size" "$image" "$rounds"
    measure_boots "$size" "$rounds"
  done
  say "load of this machine at the end: $(cut -d' ' -f1-3 /proc/loadavg)"
  report_images
}
