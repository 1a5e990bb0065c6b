#!/usr/bin/env bash
# What the tests of the WebGPU engine and of the page in a browser need beside npm: chromium, the Vulkan loader and a
# software Vulkan driver. Installs what is missing where it may (root on Debian), else says it in a line. Never fails: tests
# without an adapter or a browser skip and say so.
set -uo pipefail

# Mesa before 24 (Debian 12: 22.3) gives no WebGPU adapter.
MESA=24

has_loader() { ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; }
has_browser() { command -v chromium >/dev/null || command -v google-chrome >/dev/null; }
has_driver() {
  local installed
  installed=$(dpkg-query -W -f='${Version}' mesa-vulkan-drivers 2>/dev/null) && [ -n "$installed" ] &&
    dpkg --compare-versions "$installed" ge "$MESA" && return 0
  compgen -G '/usr/share/vulkan/icd.d/nvidia_icd*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null
}
missing() {
  has_loader || echo libvulkan1
  has_driver || echo mesa-vulkan-drivers
  has_browser || echo chromium
}

say() { echo "setup: $*"; }

install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

newest_mesa() { apt-cache madison mesa-vulkan-drivers 2>/dev/null | awk -F'|' '{ gsub(/ /, "", $2); print $2; exit }'; }

# The backports of this Debian, from wherever its own packages come: the first source of the suite, by its other name.
add_backports() {
  local suite=$1 target=/etc/apt/sources.list.d/bitwright-backports
  local file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] || continue
    awk -v suite="$suite" 'BEGIN { RS = ""; FS = "\n" }
      $0 ~ "(^|\n)Types:[^\n]*deb" && $0 ~ "(^|\n)Suites:([^\n]* )?" suite "( |\n|$)" {
        gsub(/(^|\n)Suites:[^\n]*/, "\nSuites: " suite "-backports"); sub(/^\n/, ""); print; exit
      }' "$file" >"$target.sources"
    [ -s "$target.sources" ] && return 0
  done
  rm -f "$target.sources"
  sed -nE "s/^(deb .*[^ ]) +$suite +(.*)$/\1 $suite-backports \2/p" \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1 >"$target.list"
  [ -s "$target.list" ] || { rm -f "$target.list" && return 1; }
}

install_driver() {
  local suite=$1
  dpkg --compare-versions "$(newest_mesa)" ge "$MESA" || { add_backports "$suite" && apt-get update -qq; }
  local version
  version=$(newest_mesa)
  if ! dpkg --compare-versions "$version" ge "$MESA"; then
    rm -f /etc/apt/sources.list.d/bitwright-backports.*
    return 1
  fi
  case $version in
  *~bpo*) install -t "$suite-backports" mesa-vulkan-drivers ;;
  *) install mesa-vulkan-drivers ;;
  esac
}

lacking=$(missing | xargs)
[ -z "$lacking" ] && exit 0
if [ "$(id -u)" != 0 ] || ! grep -qE '^ID(_LIKE)?=.*debian' /etc/os-release 2>/dev/null || ! command -v apt-get >/dev/null; then
  say "not installed: $lacking (only root on Debian is helped here); tests that need them will skip"
  exit 0
fi

say "installing $lacking"
apt-get update -qq || say "apt-get update did not reach all sources"
has_loader || install libvulkan1
has_driver || install_driver "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
has_browser || install chromium
lacking=$(missing | xargs)
[ -z "$lacking" ] || say "could not install: $lacking; tests that need them will skip"
exit 0
