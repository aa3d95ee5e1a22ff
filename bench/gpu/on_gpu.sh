#!/usr/bin/env bash
# Builds, tests, sanitizes and measures on a machine with an NVIDIA GPU, from a plain checkout.
#
#   bench/gpu/on_gpu.sh OUT [STEP ...]
#
# Steps (all by default):
#   build        the wheel, for the GPU at hand, installed into a folder of its own; always runs
#   code tests memcheck initcheck synccheck racecheck
#                beside each other: python -m bench.gpu.machine_code; the tests that need CUDA (on
#                several cores with pytest-xdist), a skip for want of it counting as a failure;
#                compute-sanitizer over bench.gpu.sanitizer_sweep
#   huge         the tests of tensors of more than 2^31 elements
#   bench        python -m bench --device cuda, with the project's thresholds
#   structured   python -m bench.structured --device cuda
#   peers        python -m bench --device cuda, with what torch.compile makes of nn.Dropout
#   transformer  python -m bench.transformer --device cuda, eager and compiled
#
# Ten minutes are enough for the checks, up to huge, or for the measurements, not for both in full.
# A step that fails does not stop the others; the exit status is the number of steps that failed.
# Steps share ON_GPU_SECONDS (530); one that runs out of time is interrupted and counts as failed.
# OUT gets summary.txt, steps.log (at the end; until then a log for each step) and the results:
# bench.json, bench.png, structured.json, peers.json, transformer.json. PYTHON names the
# interpreter, which has the packages of the extras bench and test. Nothing is downloaded and nothing is written outside OUT and a temporary folder.
# ON_GPU_REHEARSE=1 goes through the motions on a CPU.

set -uo pipefail

if [[ $# -lt 1 ]]; then
  echo "usage: bench/gpu/on_gpu.sh OUT [STEP ...]" >&2
  exit 64
fi

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
mkdir -p "$1" && OUT=$(cd "$1" && pwd -P) || exit 73
shift
CHECKS="code tests memcheck initcheck synccheck racecheck"
WANTED=" ${*:-$CHECKS huge bench structured peers transformer} "
PYTHON=${PYTHON:-python3}
SECONDS_IN_ALL=${ON_GPU_SECONDS:-530}
DEVICE=cuda
SANITIZER=
[[ -n ${ON_GPU_REHEARSE:-} ]] && DEVICE=cpu

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
COPY=$WORK/checkout
SITE=$WORK/site
FAILED=0
SECONDS=0
: >"$OUT/summary.txt"

say() { echo "$@" | tee -a "$OUT/summary.txt"; }

wanted() { [[ $WANTED == *" $1 "* ]]; }

# The toolkit's own folder, also where nvcc on the PATH is a wrapper or a link.
toolkit() {
  local nvcc top
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  top=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p' | head -n 1)
  [[ -d $top ]] && (cd "$top" && pwd -P)
}

# step NAME MOST RESERVE COMMAND...: runs the command for at most MOST seconds, leaving RESERVE
# seconds of the whole to later steps, and notes how it ended.
step() {
  local name=$1 most=$2 reserve=$3 log=$OUT/$1.log began=$SECONDS left status
  shift 3
  left=$((SECONDS_IN_ALL - SECONDS - reserve))
  ((left > most)) && left=$most
  if ((left < 5)); then
    say "$(printf '%-12s NO TIME LEFT' "$name")"
    return 1
  fi
  echo "===== $name: $*" >"$log"
  # Interrupted, pytest still says what it found. In the background bash has interrupts ignored.
  timeout --signal=INT --kill-after=10 "$left" env --default-signal=INT "$@" >>"$log" 2>&1
  status=$?
  case $status in
    0) say "$(printf '%-12s ok        %4d s' "$name" $((SECONDS - began)))" ;;
    124 | 137) say "$(printf '%-12s TIMED OUT %4d s' "$name" $((SECONDS - began)))" ;;
    *) say "$(printf '%-12s FAILED    %4d s, status %d' "$name" $((SECONDS - began)) "$status")" ;;
  esac
  return $((status != 0))
}

copy_checkout() {
  mkdir "$COPY"
  local entry
  for entry in "$ROOT"/* "$ROOT"/.[!.]*; do
    case ${entry##*/} in .git | build | dist | *.egg-info | '*' | '.[!.]*') continue ;; esac
    [[ $entry == "$OUT" ]] || cp -R "$entry" "$COPY/"
  done
  find "$COPY" \( -name '*.so' -o -name '__pycache__' \) -prune -exec rm -rf {} +
}

# The copy's package folder becomes a link to the installed package: whatever order sys.path has,
# it is the installed one that is tested and measured.
install() {
  "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index --no-cache-dir \
    --disable-pip-version-check --root-user-action=ignore --target "$SITE" -v "$COPY" || return
  rm -rf "$COPY/dropout_ext" && ln -s "$SITE/dropout_ext" "$COPY/dropout_ext" || return
  cd "$COPY" && "$PYTHON" -c 'import dropout_ext; print(dropout_ext.build_info())'
}
export -f install
export PYTHON COPY SITE

check() { # NAME: one of CHECKS
  local sweep=("$PYTHON" -m bench.gpu.sanitizer_sweep --device "$DEVICE") under=() workers=()
  case $1 in
    code)
      [[ $DEVICE == cpu ]] && return
      step code 60 "$RESERVED" "$PYTHON" -m bench.gpu.machine_code --arch "sm_${TORCH_CUDA_ARCH_LIST/./}"
      ;;
    tests)
      "$PYTHON" -c 'import xdist' 2>/dev/null && workers=(-n 6 --dist loadfile)
      step tests 400 "$RESERVED" "$PYTHON" -m pytest tests -m needs_cuda -q -ra --tb=short \
        -p no:cacheprovider --durations=10 "${workers[@]}"
      ;;
    *)
      [[ $DEVICE == cuda ]] && under=("$SANITIZER" --tool "$1" --error-exitcode 9 --print-limit 20)
      step "$1" 150 "$RESERVED" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${under[@]}" "${sweep[@]}"
      ;;
  esac
}

environment() {
  if [[ $DEVICE == cpu ]]; then
    export FORCE_CUDA=0
    return
  fi
  export FORCE_CUDA=1 DROPOUT_EXT_REQUIRE_CUDA=1
  export CUDA_HOME=${CUDA_HOME:-$(toolkit)}
  export TORCH_CUDA_ARCH_LIST
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c \
    'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))') || return
  export PATH=$PATH:$CUDA_HOME/bin:$CUDA_HOME/compute-sanitizer
  SANITIZER=$(command -v compute-sanitizer || echo compute-sanitizer)
  say "CUDA ${CUDA_HOME##*/}, $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader |
    head -n 1), sm_${TORCH_CUDA_ARCH_LIST/./}"
}

environment || { say "no CUDA device is visible to torch"; exit 69; }
copy_checkout
if ! step build 240 0 bash -c install; then
  say "nothing else can run: the end of build.log says why"
  exit 1
fi
cd "$COPY" || exit 70
export PYTHONPATH=$SITE PYTHONUNBUFFERED=1

RESERVED=0
wanted bench && RESERVED=$((RESERVED + 130))
wanted structured && RESERVED=$((RESERVED + 20))
wanted peers && RESERVED=$((RESERVED + 30))
wanted transformer && RESERVED=$((RESERVED + 60))
LATER=$RESERVED
wanted huge && RESERVED=$((RESERVED + 40))

# Correctness first, and at once: no check is timed.
CHECKING=()
for name in $CHECKS; do
  if wanted "$name"; then
    check "$name" &
    CHECKING+=($!)
  fi
done
for process in "${CHECKING[@]}"; do wait "$process" || FAILED=$((FAILED + 1)); done
if wanted huge && [[ $DEVICE == cuda ]]; then
  step huge 90 "$LATER" env DROPOUT_EXT_HUGE=1 "$PYTHON" -m pytest "$(find tests -name test_huge.py)" \
    -k cuda -q -ra --tb=short -p no:cacheprovider || FAILED=$((FAILED + 1))
fi

measure() { # NAME RESERVE MODULE OPTION...
  local name=$1 reserve=$2
  shift 2
  if wanted "$name"; then
    step "$name" 240 "$reserve" \
      "$PYTHON" -m "$@" --device "$DEVICE" --json "$OUT/$name.json" || FAILED=$((FAILED + 1))
  fi
}

SIZES="1 1K 64K 1M 16M 64M 256M" COMPILED_SIZES="1M 64M"
OPTIONS="--layout-sizes 64M --check-thresholds --seconds 0.02"
TRANSFORMER="--dtype bfloat16 --compiled --seconds 1"
if [[ $DEVICE == cpu ]]; then
  SIZES="1 1K 64K" COMPILED_SIZES=1K OPTIONS=--quick TRANSFORMER="--seconds 0.1"
fi
EAGER=(dropout_ext nn.Dropout hand-written torch.mul copy_)
COMPILED=(dropout_ext nn.Dropout "compiled nn.Dropout" "compiled hand-written" copy_)
# shellcheck disable=SC2086  # these are lists of words
{
  measure bench 110 bench --candidates "${EAGER[@]}" --sizes $SIZES $OPTIONS --plot "$OUT/bench.png"
  measure structured 90 bench.structured --seconds 0.1
  measure peers 60 bench --candidates "${COMPILED[@]}" --sizes $COMPILED_SIZES --seconds 0.02 \
    --dtypes bfloat16 float32 --modes forward forward_backward --sections speed
  measure transformer 0 bench.transformer $TRANSFORMER
}

if [[ -s $OUT/tests.log ]]; then say "tests: $(grep -E ' in [0-9.]+s' "$OUT/tests.log" | tail -n 1)"; fi
grep -h -e ' MISSED$' -e '^thresholds: ' -e '^failed: ' "$OUT"/*.log | tee -a "$OUT/summary.txt"
cat "$OUT"/*.log >"$OUT/steps" && rm "$OUT"/*.log && mv "$OUT/steps" "$OUT/steps.log"
say "$FAILED of the steps failed; $SECONDS s in all"
exit "$FAILED"
