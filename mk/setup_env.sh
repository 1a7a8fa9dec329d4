#!/usr/bin/env bash
# Makes and fills .venv; called by the Makefile from the repository's root.
#
#   PYTHON=python3 mk/setup_env.sh demo   what pretraining and the demo need
#   PYTHON=python3 mk/setup_env.sh test   the same, and mmseg, mmdet and the test tools
#
# Compiles nothing. mmcv is installed on its own, never by the resolver, because pip may take it from its cache, compiled
# for another torch.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

readonly WANTED=${1:?usage: mk/setup_env.sh demo|test}
readonly PYTHON=${PYTHON:-python3}
readonly VENV_PYTHON=.venv/bin/python

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

pip_install() { "$VENV_PYTHON" -m pip install --quiet "$@"; }

# The version that constraints.txt pins for the distribution $1.
pinned() { sed -n "s/^$1==\([^; ]*\).*/\1/p" constraints.txt; }

installed() { "$VENV_PYTHON" -c "import importlib.metadata as m; print(m.version('$1'))" 2>/dev/null || true; }

require_supported_python() {
    local version
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        die "$1 does not run. Choose another Python: make $WANTED PYTHON=python3.11"
    case $version in
        3.10 | 3.11 | 3.12) ;;
        *) die "$1 is Python $version; mmebm needs 3.10, 3.11 or 3.12. $2" ;;
    esac
}

make_venv() {
    if [ -x "$VENV_PYTHON" ]; then
        require_supported_python "$VENV_PYTHON" "Delete .venv and choose another: make $WANTED PYTHON=python3.11"
        return
    fi
    require_supported_python "$PYTHON" "Choose another: make $WANTED PYTHON=python3.11"
    say "Making .venv with $("$PYTHON" -V)"
    "$PYTHON" -m venv .venv || {
        rm -rf .venv
        die "$PYTHON -m venv failed. On Debian and Ubuntu: apt install python3-venv"
    }
}

install_torch() {
    local torch torchvision
    torch=$(pinned torch) torchvision=$(pinned torchvision)
    # A local version such as 2.11.0+cpu, chosen by hand, counts as the same release.
    if [[ $(installed torch) == "$torch"* && $(installed torchvision) == "$torchvision"* ]]; then
        return
    fi
    say "Installing torch $torch and torchvision $torchvision (4.7 GB on disk; a minute on a fast line)"
    pip_install "torch==$torch" "torchvision==$torchvision" -c constraints.txt
    "$VENV_PYTHON" -m pip uninstall -qq --yes onedl-mmcv # ops compiled for another torch would not load
}

# Without torch in sight, as in pip's isolated build, mmcv comes without compiled ops, in seconds, and mmebm stands in for
# the few that it needs (mmebm/mmcv_ext.py). An mmcv that has its own is left as it is.
install_mmcv() {
    local mmcv
    mmcv=$(pinned onedl-mmcv)
    if [ "$(installed onedl-mmcv)" = "$mmcv" ]; then
        return
    fi
    say "Installing mmcv $mmcv without compiled ops"
    pip_install --no-cache-dir --no-deps "onedl-mmcv==$mmcv"
}

# opencv-python needs libGL, which servers and containers often lack; the headless build does not.
ensure_cv2() {
    if "$VENV_PYTHON" -c 'import cv2' 2>/dev/null; then
        return
    fi
    say "opencv-python does not load here (as a rule, libGL is missing): putting the headless build over it"
    pip_install --force-reinstall --no-deps "opencv-python-headless==$(pinned opencv-python-headless)"
    "$VENV_PYTHON" -c 'import cv2' || die "OpenCV cannot be imported; the reason stands above"
}

make_venv
install_torch
install_mmcv
if [ "$WANTED" = test ]; then
    say "Installing mmebm with mmseg, mmdet and the test tools"
    pip_install -e '.[seg,det,dev]' -c constraints.txt
else
    say "Installing mmebm and what it needs"
    pip_install -e . -c constraints.txt
fi
ensure_cv2
"$VENV_PYTHON" -c 'import mmebm' # checks that the versions fit together
say "Ready: .venv"
