# shellcheck shell=bash
# Shared by all scripts: messages, errors, packages, the cache, and progress of long commands.
# Invariant: data goes to stdout, messages to stderr. It is sourced, never run.

set -euo pipefail
umask 022
export LC_ALL=C

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
# Progress is printed at least this often (seconds): less than people and CI systems are willing to wait without output.
HEARTBEAT=15

# log TEXT: prints one message.
log() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die WHAT HINT: prints an error and what to do next, and ends the script.
die() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  [[ -z ${2-} ]] || printf '  hint: %s\n' "$2" >&2
  exit 1
}

# cache_dir NAME: prints a folder below the cache, which is created if missing.
cache_dir() {
  local dir="${CLOISTER_CACHE:-${HOME}/.cache/cloister}/$1"
  mkdir -p "$dir"
  printf '%s\n' "$dir"
}

# sha256_of FILE: prints its hash only.
sha256_of() {
  sha256sum -- "$1" | cut -d' ' -f1
}

# part_of IMAGE TITLE: prints one part of an enclave image, by its title. Needs jq.
part_of() {
  local manifest blobs=$1/blobs/sha256
  manifest=$(jq -r '.manifests[0].digest | ltrimstr("sha256:")' "$1/index.json")
  cat "$blobs/$(jq -r --arg title "$2" '.layers[] | select(.annotations["org.opencontainers.image.title"] == $title) |
    .digest | ltrimstr("sha256:")' "$blobs/$manifest")"
}

# as_root COMMAND…: runs it directly, or through sudo.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root and there is no sudo: $*" "run that command as root, then this script again"
  fi
}

# is_here PROBE: true if there is such a command or, if it starts with a slash, such a file; it may be a pattern.
is_here() {
  if [[ $1 == /* ]]; then compgen -G "$1" >/dev/null; else type -P "$1" >/dev/null; fi
}

# is_debian: true on the releases whose package names are known here.
is_debian() {
  [[ -r /etc/os-release ]] && (. /etc/os-release && [[ ${ID-} == debian && ${VERSION_ID-} == 1[23] ]])
}

# need_packages 'PACKAGE[=PROBE]: REASON'…: installs missing packages, after printing which and why. PROBE shows on any
# distribution that a package is installed; default: the command of the package's name.
need_packages() {
  local entry package probe missing=()
  for entry in "$@"; do
    probe=${entry%%:*}
    package=${probe%%=*}
    probe=${probe#*=}
    if is_here "$probe"; then continue; fi
    missing+=("$package")
    log "needs the package $package, but did not find ${probe}:${entry#*:}"
  done
  ((${#missing[@]})) || return 0
  if [[ ${CLOISTER_SKIP_PACKAGES-} == 1 ]]; then
    log "CLOISTER_SKIP_PACKAGES: continuing without ${missing[*]}"
    return 0
  fi
  is_debian || die "not Debian 12 or 13: packages are not installed automatically on this system" \
    "install what Debian calls: ${missing[*]}. If they are installed elsewhere, set CLOISTER_SKIP_PACKAGES=1; then run this again"
  log "installing with apt: ${missing[*]}"
  apt_install "${missing[@]}"
}

apt_install() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends)
  as_root "${apt[@]}" update >&2 || log "apt-get update failed; trying with the existing package lists"
  as_root "${apt[@]}" install "$@" >&2 || die "apt could not install: $*" "read apt's message above"
}

# guest_programs: prints the workspace's packages that are in ramdisk 1, in its order.
guest_programs() {
  awk '$1 == "file" { print $4 }' "$ROOT/rootfs/ramdisk1.list"
}

# need_command COMMAND HINT: ends the script if the command is missing.
need_command() {
  command -v "$1" >/dev/null || die "$1 is not installed" "$2"
}

# run_slowly LABEL LOG COMMAND…: runs it with its output in LOG and reports progress every few seconds; if it fails, shows
# the end of the log and fails.
run_slowly() {
  local label=$1 log=$2 start=$SECONDS fd part='' status=''
  shift 2
  log "$label …"
  exec {fd}< <(if "$@" >"$log" 2>&1 </dev/null; then echo 0; else echo "$?"; fi)
  # A read that timed out has consumed the available part of the line: the parts together are the status.
  until read -r -t "$HEARTBEAT" -u "$fd" part; do
    (($? > 128)) || break
    status+=$part
    log "$label: $((SECONDS - start)) s, $(wc -l <"$log") lines; $(tail -n 1 "$log" | cut -c 1-72)"
  done
  status+=$part
  exec {fd}<&-
  if [[ $status != 0 ]]; then
    tail -n 40 "$log" | sed 's/^/  | /' >&2
    die "$label failed after $((SECONDS - start)) s" "the whole log is in $log"
  fi
  log "$label: done in $((SECONDS - start)) s"
}

# lock FILE WHAT: waits for an exclusive lock on FILE, which is released when the script ends.
lock() {
  local fd
  exec {fd}>"$1"
  if ! flock -n "$fd"; then
    log "another process is working on $2; waiting for it"
    flock "$fd"
  fi
}

# download SHA256 FILE URL…: tries the addresses in order until one has the right bytes; FILE is created complete or not at all.
download() {
  local want=$1 file=$2 url got
  shift 2
  for url in "$@"; do
    log "downloading $url"
    if curl -fsSL --retry 2 --connect-timeout 20 -o "$file.part" "$url"; then
      got=$(sha256_of "$file.part")
      if [[ $got == "$want" ]]; then
        mv "$file.part" "$file"
        return 0
      fi
      log "$url has the hash $got, not $want"
    fi
  done
  rm -f "$file.part"
  return 1
}
