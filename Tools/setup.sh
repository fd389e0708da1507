# Sourced by the scripts beside it: what they need from the system.

# Installs the Debian packages given that are missing, or says what to install.
install_missing() {
    local missing=()
    if ! command -v dpkg-query >/dev/null; then
        return # Not Debian: the build itself says what it misses.
    fi
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null) == "ii "* ]] || missing+=("$name")
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    if [[ $(id -u) == 0 ]]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    else
        echo "please install: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
}

# Says what to install where there is no Swift to build with.
require_swift() {
    if ! command -v swift >/dev/null; then
        echo "please install Swift 6.3 or later first: https://www.swift.org/install" >&2
        exit 1
    fi
}
