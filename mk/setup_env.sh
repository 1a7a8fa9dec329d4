#!/usr/bin/env bash
# Makes and fills .venv; called by the Makefile from the repository's root.
#
#   PYTHON=python3 mk/setup_env.sh demo   what pretraining and the demo need; compiles nothing
#   PYTHON=python3 mk/setup_env.sh test   the same, and mmseg, mmdet, mmcv's compiled ops and the test tools
#
# mmcv is installed on its own, never by the resolver, because pip may take it from its cache with or without ops.
set -euo pipefail
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

readonly WANTED=${1:?usage: mk/setup_env.sh demo|test}
readonly PYTHON=${PYTHON:-python3}
readonly VENV_PYTHON=.venv/bin/python
readonly WHEELS=${XDG_CACHE_HOME:-$HOME/.cache}/mmebm/wheels

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
}

# Without torch in sight, as in pip's isolated build, mmcv comes without ops, in seconds. With or without: both will do.
install_any_mmcv() {
    local mmcv
    mmcv=$(pinned onedl-mmcv)
    if [ "$(installed onedl-mmcv)" = "$mmcv" ]; then
        return
    fi
    say "Installing mmcv $mmcv without compiled ops"
    pip_install --no-cache-dir --no-deps "onedl-mmcv==$mmcv"
}

has_mmcv_ops() { "$VENV_PYTHON" -c 'from mmcv.ops import nms' 2>/dev/null; }

# Compiles mmcv against the installed torch into the folder $1.
build_mmcv_ops() {
    local mmcv build
    mmcv=$(pinned onedl-mmcv)
    command -v c++ >/dev/null || die "mmcv's ops need a C++ compiler. On Debian and Ubuntu: apt install g++"
    "$VENV_PYTHON" -c 'import sysconfig, pathlib; pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()' \
        2>/dev/null || die "mmcv's ops need the headers of Python. On Debian and Ubuntu: apt install python3-dev"
    say "Building mmcv $mmcv with compiled ops: 8-13 minutes on 2 cores, once;"
    say "the wheel is kept in $1"
    mkdir -p "$1"
    build=$(mktemp -d "$1/build.XXXXXX")
    trap "rm -rf '$build'" EXIT
    # No GPU in sight: with one, mmcv would ask for nvcc. The tests need the ops on the CPU only.
    CUDA_VISIBLE_DEVICES='' "$VENV_PYTHON" -m pip wheel --no-build-isolation --no-cache-dir --no-deps \
        --wheel-dir "$build" "onedl-mmcv==$mmcv" 2>&1 | tee "$1/build.log" ||
        die "mmcv did not compile; the log is $1/build.log"
    if compgen -G "$build/*-none-any.whl" >/dev/null; then
        die "mmcv's build skipped the ops; the log is $1/build.log"
    fi
    mv "$build"/*.whl "$1/"
}

install_mmcv_ops() {
    local mmcv tag folder wheel
    mmcv=$(pinned onedl-mmcv)
    if [ "$(installed onedl-mmcv)" = "$mmcv" ] && has_mmcv_ops; then
        return
    fi
    tag=$("$VENV_PYTHON" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    folder=$WHEELS/$tag-torch$(installed torch)-mmcv$mmcv
    wheel=$folder/onedl_mmcv-$mmcv-$tag-$tag-linux_$(uname -m).whl
    pip_install "setuptools==$(pinned setuptools)" "wheel==$(pinned wheel)"
    if [ ! -e "$wheel" ]; then
        build_mmcv_ops "$folder"
    fi
    say "Installing mmcv $mmcv with compiled ops from $wheel"
    pip_install --force-reinstall --no-deps "$wheel"
    has_mmcv_ops || die "$wheel holds no ops that work here ('from mmcv.ops import nms' fails). Delete it and try again."
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
if [ "$WANTED" = test ]; then
    install_any_mmcv
    say "Installing mmebm with mmseg, mmdet and the test tools"
    pip_install -e '.[seg,det,dev]' -c constraints.txt
    ensure_cv2
    install_mmcv_ops
else
    install_any_mmcv
    say "Installing mmebm and what it needs"
    pip_install -e . -c constraints.txt
    ensure_cv2
fi
"$VENV_PYTHON" -c 'import mmebm' # checks that the versions fit together
say "Ready: .venv"
