# shellcheck shell=bash
# What every script here shares: speaking, stopping, packages, the cache, and long work that shows it is alive.
# Its law: data goes to stdout, everything said to people goes to stderr. It is sourced, never run.

set -euo pipefail
umask 022
export LC_ALL=C

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
# A sign of life at least this often (seconds): shorter than the patience of people and of CI systems.
HEARTBEAT=15

# say TEXT: one line for people.
say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die WHAT HINT: the end of a script, with the one thing to do next.
die() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  [[ -z ${2-} ]] || printf '  hint: %s\n' "$2" >&2
  exit 1
}

# cache_dir NAME: a folder below the cache, made when missing.
cache_dir() {
  local dir="${CLOISTER_CACHE:-${HOME}/.cache/cloister}/$1"
  mkdir -p "$dir"
  printf '%s\n' "$dir"
}

# sha256_of FILE: its hash alone.
sha256_of() {
  sha256sum -- "$1" | cut -d' ' -f1
}

# part_of IMAGE TITLE: one part of an enclave image, by its title. Needs jq.
part_of() {
  local manifest blobs=$1/blobs/sha256
  manifest=$(jq -r '.manifests[0].digest | ltrimstr("sha256:")' "$1/index.json")
  cat "$blobs/$(jq -r --arg title "$2" '.layers[] | select(.annotations["org.opencontainers.image.title"] == $title) |
    .digest | ltrimstr("sha256:")' "$blobs/$manifest")"
}

# as_root COMMAND…: directly, or through sudo.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root and there is no sudo: $*" "run that command as root, then this script again"
  fi
}

# is_here PROBE: true when there is such a command, or for what starts with a slash, such a file; it may be a pattern.
is_here() {
  if [[ $1 == /* ]]; then compgen -G "$1" >/dev/null; else type -P "$1" >/dev/null; fi
}

# is_debian: true on the releases whose package names are known here.
is_debian() {
  [[ -r /etc/os-release ]] && (. /etc/os-release && [[ ${ID-} == debian && ${VERSION_ID-} == 1[23] ]])
}

# need_packages 'PACKAGE[=PROBE]: REASON'…: installs what is missing, after saying what and why. PROBE is what shows that it
# is here, on any distribution; else it is the command of the package's name.
need_packages() {
  local entry package probe missing=()
  for entry in "$@"; do
    probe=${entry%%:*}
    package=${probe%%=*}
    probe=${probe#*=}
    if is_here "$probe"; then continue; fi
    missing+=("$package")
    say "needs the package $package, and does not find ${probe}:${entry#*:}"
  done
  ((${#missing[@]})) || return 0
  if [[ ${CLOISTER_SKIP_PACKAGES-} == 1 ]]; then
    say "CLOISTER_SKIP_PACKAGES: going on without ${missing[*]}"
    return 0
  fi
  is_debian || die "not Debian 12 or 13: nothing is installed by itself here" \
    "install what Debian calls: ${missing[*]}. If that is here in another place, set CLOISTER_SKIP_PACKAGES=1; then run this again"
  say "installing with apt: ${missing[*]}"
  apt_install "${missing[@]}"
}

apt_install() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends)
  as_root "${apt[@]}" update >&2 || say "apt-get update failed; trying with the lists that are here"
  as_root "${apt[@]}" install "$@" >&2 || die "apt could not install: $*" "read apt's message above"
}

# guest_programs: the packages of the workspace that ramdisk 1 ships, in its order.
guest_programs() {
  awk '$1 == "file" { print $4 }' "$ROOT/rootfs/ramdisk1.list"
}

# need_command COMMAND HINT
need_command() {
  command -v "$1" >/dev/null || die "$1 is not installed" "$2"
}

# run_slowly LABEL LOG COMMAND…: runs it with its output in LOG and reports every few seconds; shows the log's end
# and fails when it fails.
run_slowly() {
  local label=$1 log=$2 start=$SECONDS fd part='' status=''
  shift 2
  say "$label …"
  exec {fd}< <(if "$@" >"$log" 2>&1 </dev/null; then echo 0; else echo "$?"; fi)
  # A read that ran out of time has taken what was there of the line: the parts together are the status.
  until read -r -t "$HEARTBEAT" -u "$fd" part; do
    (($? > 128)) || break
    status+=$part
    say "$label: $((SECONDS - start)) s, $(wc -l <"$log") lines; $(tail -n 1 "$log" | cut -c 1-72)"
  done
  status+=$part
  exec {fd}<&-
  if [[ $status != 0 ]]; then
    tail -n 40 "$log" | sed 's/^/  | /' >&2
    die "$label failed after $((SECONDS - start)) s" "the whole log is in $log"
  fi
  say "$label: done in $((SECONDS - start)) s"
}

# lock FILE WHAT: waits until this process alone holds FILE; released when the script ends.
lock() {
  local fd
  exec {fd}>"$1"
  if ! flock -n "$fd"; then
    say "another process is busy with $2; waiting for it"
    flock "$fd"
  fi
}

# download SHA256 FILE URL…: the first address that yields those bytes wins; FILE appears whole or not at all.
download() {
  local want=$1 file=$2 url got
  shift 2
  for url in "$@"; do
    say "downloading $url"
    if curl -fsSL --retry 2 --connect-timeout 20 -o "$file.part" "$url"; then
      got=$(sha256_of "$file.part")
      if [[ $got == "$want" ]]; then
        mv "$file.part" "$file"
        return 0
      fi
      say "$url has the hash $got, not $want"
    fi
  done
  rm -f "$file.part"
  return 1
}
