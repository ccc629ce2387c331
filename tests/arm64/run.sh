#!/usr/bin/env bash
# The runtime on 64-bit ARM without a board: its wheel and the aarch64 wheels of its dependencies in a Debian of that
# architecture, under qemu's user emulation. It proves that things work, not how fast they are, and emulation is known to
# miss instructions that a real core lacks (microsoft/onnxruntime issue 24512).
#
# Usage: tests/arm64/run.sh [PYTEST ARGUMENTS…]
#   KDEDGE_MODELS="FILE…"   model files to self-test there as well
#   KDEDGE_ENGINES=DIR      folder with FILE.onnx and what engines.py --converted DIR has made of it, to run in the
#                           other engines there as well
set -euo pipefail
cd "$(dirname "$0")/../.."

BUILD=$PWD/build/arm64
ROOT=$BUILD/root
SUITE=trixie
PYTHON=3.13 # what Debian's $SUITE has
PIP=${PIP:-.venv/bin/pip}

skip() {
    echo "skipped: $1"
    exit 0
}

[ "$(id -u)" = 0 ] || skip "needs root, to make a Debian root and to change into it"
command -v debootstrap >/dev/null || skip "needs debootstrap (apt install debootstrap)"
QEMU=$(command -v qemu-aarch64-static || true)
[ "$(uname -m)" = aarch64 ] || [ -n "$QEMU" ] || skip "needs qemu (apt install qemu-user-static)"

# The kernel hands ARM programs to qemu. Where that is not configured, configure it for the time of this run.
BINFMT=/proc/sys/fs/binfmt_misc
if [ "$(uname -m)" != aarch64 ] && ! [ -e "$BINFMT/qemu-aarch64" ]; then
    [ -e "$BINFMT/register" ] || mount -t binfmt_misc binfmt_misc "$BINFMT" || skip "the kernel has no binfmt_misc"
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":qemu-aarch64:M::$magic:$mask:$QEMU:F" >"$BINFMT/register" || skip "binfmt_misc takes no handler"
    trap 'echo -1 >"$BINFMT/qemu-aarch64"' EXIT
fi

if ! [ -e "$ROOT/.complete" ]; then
    echo "== a Debian $SUITE for arm64, once"
    rm -rf "$ROOT"
    mkdir -p "$BUILD"
    debootstrap --arch=arm64 --variant=minbase --include=python3,libstdc++6 "$SUITE" "$ROOT" >"$BUILD/debootstrap.log" 2>&1 ||
        { tail -n 20 "$BUILD/debootstrap.log"; exit 1; }
    touch "$ROOT/.complete"
fi

echo "== the wheel of the runtime and what it needs, for aarch64"
rm -rf "$BUILD/wheels" "$ROOT/opt/site" "$ROOT/opt/kdedge"
"$PIP" wheel --quiet --no-deps --wheel-dir "$BUILD/wheels" ./runtime
# onnx and pytest are for the tests only.
"$PIP" install --quiet --target "$ROOT/opt/site" --python-version "$PYTHON" --only-binary=:all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
    --platform manylinux2014_aarch64 \
    "$(echo "$BUILD"/wheels/kdedge_runtime-*.whl)[verify,audio]" "onnx>=1.17" "pytest>=8" "pytest-timeout>=2.3"
mkdir -p "$ROOT/opt/kdedge/tests"
cp -r devices pyproject.toml "$ROOT/opt/kdedge"
cp -r tests/runtime tests/conftest.py "$ROOT/opt/kdedge/tests"

inside() { # a core's name, then a command; mounts vanish with the namespace that they are made in
    local core=$1
    shift
    unshare --mount sh -c 'mount -t proc proc "$0/proc" && mount -t sysfs sysfs "$0/sys" && mount --bind /dev "$0/dev" &&
        exec chroot "$0" /usr/bin/env "$@"' "$ROOT" -C /opt/kdedge -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 \
        PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1 QEMU_CPU="$core" "$@"
}
kdedge_run='import sys; from kdedge_runtime.cli.main import main; sys.exit(main())'

echo "== what is emulated"
for core in cortex-a53 cortex-a72 cortex-a76; do
    inside "$core" python3 -c "$kdedge_run" devices detect
done

for model in ${KDEDGE_MODELS:-}; do
    cp "$model" "$ROOT/opt/kdedge/model.onnx"
    for core in cortex-a72 cortex-a76; do
        echo "== the self-test of $(basename "$model") on a $core"
        inside "$core" python3 -c "$kdedge_run" self-test model.onnx --device generic --threads 1
    done
done

if [ -n "${KDEDGE_ENGINES:-}" ]; then
    echo "== other engines on a Cortex-A76, as in a Raspberry Pi 5"
    "$PIP" install --quiet --target "$ROOT/opt/engines" --upgrade --python-version "$PYTHON" --only-binary=:all: \
        --platform manylinux_2_35_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 openvino ncnn ai-edge-litert
    mkdir -p "$ROOT/opt/kdedge/tests/benchmarks"
    cp tests/benchmarks/engines.py "$ROOT/opt/kdedge/tests/benchmarks"
    rm -rf "$ROOT/opt/kdedge/engines"
    cp -r "$KDEDGE_ENGINES" "$ROOT/opt/kdedge/engines"
    for model in "$KDEDGE_ENGINES"/*.onnx; do # one process each, since an engine may end it
        inside cortex-a76 PYTHONPATH=/opt/site:/opt/engines python3 tests/benchmarks/engines.py \
            "engines/$(basename "$model")" --converted engines --seconds 0 || echo "exit status $?"
    done
fi

# Not those that play at the pace of a camera: emulation is tens of times slower than the clock that they go by.
tests=(
    test_{deployment,embedding,enrolled_classes,familiarity,metadata,model,precision,prediction,runtime_imports}.py
    bundle/test_bundle.py
    cli/test_commands.py
    devices/test_{detection,profiles}.py
    diagnostics/test_{benchmark,device_checks,environment,plain_model,reference_frames,system_state}.py
    drawing/test_{heatmap,overlay}.py
    explainers/test_sample_files.py
    modalities/test_{audio,image,tabular,timeseries}_input.py
    sources/test_{grammar,row_source,sources}.py
    tasks/test_classification.py
    util/test_{images,plugin_registry,process,timing}.py
)
echo "== the tests of the runtime on a Cortex-A72, as in a Raspberry Pi 4"
# qemu does not enforce a limit of memory.
inside cortex-a72 python3 -m pytest -q -p no:cacheprovider -m "not slow" --deselect \
    tests/runtime/util/test_images.py::test_image_exceeding_memory_is_skipped "$@" "${tests[@]/#/tests/runtime/}"
