#!/usr/bin/env bash
# Given a GPU for ten minutes: what can be proved of it, most important first, all into one folder.
#   scripts/gpu-check.sh [--device cpu|cuda] [--minutes N] [FOLDER]
# Correctness (every op test, streams against serial, a training beside the CPU's), then compute-sanitizer, then
# figures. Needs `npm run build` done. Without a GPU each step says "no device" and the script ends with 0; with
# --device cpu the same steps run on the CPU, which is how the script itself is tried.
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda
minutes=10
folder=
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    *) folder=$1; shift ;;
  esac
done
folder=${folder:-gpu-check-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
end=$(($(date +%s) + minutes * 60))
export ZEROSHARD_TEST_DEVICE=$device TAP_TIMEOUT=600 # tap ends a file after 30 s otherwise
steps=0 ok=0 failed=0 without=0

step() { # name, seconds at most, command…
  local name=$1 limit=$2 left status start
  shift 2
  steps=$((steps + 1))
  start=$(date +%s)
  left=$((end - start))
  if [ "$left" -lt 5 ]; then
    echo "skipped    $name: no time left" | tee -a "$folder/summary.txt"
    return
  fi
  timeout "$((limit < left ? limit : left))" "$@" > "$folder/$name.txt" 2>&1
  status=$?
  case $status in
    0) ok=$((ok + 1)); word="ok        " ;;
    77) without=$((without + 1)); word="no device " ;;
    124) failed=$((failed + 1)); word="time out  " ;;
    *) failed=$((failed + 1)); word="FAILED $status  " ;;
  esac
  echo "$word $name, $(($(date +%s) - start)) s" | tee -a "$folder/summary.txt"
}
on_device="node --import tsx --import ./test/helpers/on-device.ts"

{
  date
  uname -a
  git rev-parse HEAD 2> /dev/null
  node --version
  if command -v nvidia-smi > /dev/null; then nvidia-smi; else echo "no nvidia-smi"; fi
} > "$folder/machine.txt" 2>&1

step doctor 60 node dist/cli/main.js doctor
# Each kernel's cases and its times through the C ABI alone: the backend is judged apart from the core and from Node.
runner=cmake-build/tests/test/native/cuda/gpu_runner
export ZEROSHARD_CUDA=$PWD/build/Release/libzeroshard_cuda13.so
if [ "$device" = cuda ] && [ -x "$runner" ]; then
  step kernels 180 "$runner"
  step kernels-own-attention 180 env ZEROSHARD_ATTENTION=own "$runner"
else
  echo "skipped    kernels: $([ -x "$runner" ] && echo "it needs a GPU" || echo "no $runner (node scripts/native-tests.mjs builds it)")" |
    tee -a "$folder/summary.txt"
fi
# Each operation against float64, then what is built of them.
for name in ops numbers gradient-check classifier-parts dropout autograd models optim recompute; do
  step "op-$name" 120 $on_device "test/op/$name.test.ts"
done
step op-own-attention 120 env ZEROSHARD_ATTENTION=own $on_device test/op/ops.test.ts
step op-serial 120 env ZEROSHARD_SERIAL=1 $on_device test/op/ops.test.ts
# A small model from the same seed on the device, serially too, and on the CPU: one loss curve.
step train 180 node scripts/gpu-train.mjs "$device" "$folder/train"
# Memory errors and races of every kernel that the op tests launch.
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
for tool in memcheck racecheck initcheck synccheck; do
  if [ "$device" = cuda ] && [ -z "$sanitizer" ]; then
    echo "skipped    sanitizer-$tool: compute-sanitizer is not installed (it comes with the CUDA toolkit)" |
      tee -a "$folder/summary.txt"
    continue
  fi
  run=()
  [ "$device" = cuda ] && run=("$sanitizer" --tool "$tool" --error-exitcode 3 --target-processes all)
  step "sanitizer-$tool" 150 "${run[@]}" $on_device test/op/numbers.test.ts
done
step figures 180 node scripts/gpu-figures.mjs "$device" "$folder/figures.json"

echo "$steps steps: $ok ok, $failed failed, $without without a device; all of it in $folder" | tee -a "$folder/summary.txt"
[ "$failed" -eq 0 ]
