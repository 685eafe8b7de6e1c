#!/bin/sh
# octkit on a machine as fresh as they come: Debian 13 (Python 3.13) in a folder, with what the README asks for and no
# more. An ordinary user clones the last commit there and gives the README's two commands.
#
#     sudo tests/fresh/debian13.sh FOLDER                      make demo, then make test
#     sudo tests/fresh/debian13.sh FOLDER 'make .venv/ready'   or any other commands
#
# Needs root, debootstrap and unshare (Debian: debootstrap, util-linux), and 12 GB of disk. A FOLDER that is there is
# used again. The environment may name a mirror (DEBIAN_MIRROR) and what pip takes (PIP_…, TORCH_INDEX, TORCH,
# https_proxy); a file that PIP_CERT names is copied along.
set -eu
FOLDER=$1
COMMANDS=${2:-make demo && make test}
CHECKOUT=$(cd "$(dirname "$0")/../.." && pwd)

if [ ! -x "$FOLDER/usr/bin/make" ]; then
    debootstrap --variant=minbase --include=python3,python3-venv,git,make trixie "$FOLDER" \
        "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    chroot "$FOLDER" useradd --create-home student
fi
cp -L /etc/resolv.conf "$FOLDER/etc/resolv.conf"
echo "127.0.0.1 localhost $(hostname)" > "$FOLDER/etc/hosts"  # as an installed system has: torchrun looks itself up
if [ -n "${PIP_CERT:-}" ]; then
    mkdir -p "$FOLDER$(dirname "$PIP_CERT")"
    cp -L "$PIP_CERT" "$FOLDER$PIP_CERT"
fi
rm -rf "$FOLDER/home/student/octkit"
git -C "$CHECKOUT" bundle create --quiet "$FOLDER/home/student/octkit.bundle" HEAD
env | grep -E '^(PIP_[A-Z_]*|TORCH|TORCH_INDEX|OMP_NUM_THREADS|https?_proxy|no_proxy)=' | sed "s/'/'\\\\''/g; s/=\(.*\)/='\1'/; s/^/export /" \
    > "$FOLDER/home/student/environment"

cat > "$FOLDER/home/student/commands" <<END
set -eu
cd
. ./environment
export HOME=/home/student PATH=/usr/bin:/bin LANG=C.UTF-8
git clone --quiet octkit.bundle octkit
cd octkit
began=\$(date +%s)
$COMMANDS
echo "all done in \$((\$(date +%s) - began)) s; .venv takes \$(du -sm .venv | cut -f1) MB"
END
# Namespaces of its own, so that no mount and no process outlives this.
exec unshare --mount --pid --fork sh -c '
    mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev"
    exec chroot --userspec=student:student "$1" env -i HOME=/home/student sh /home/student/commands' sh "$FOLDER"
