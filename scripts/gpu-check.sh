#!/usr/bin/env bash
# Given a GPU for ten minutes: what can be proved of it, most important first, all into one folder.
#   scripts/gpu-check.sh [--device cpu|cuda|stand-in] [--minutes N] [FOLDER]
# Correctness (kernels through the C ABI, every op test, a training beside the CPU's, several ranks), then
# compute-sanitizer, then figures. Needs `npm run build` and `node scripts/native-tests.mjs`, both before the GPU is there.
# Without a GPU each step says "no device" and the script ends with 0. --device cpu runs the same steps on the CPU (kernels
# on the stand-in for a device), --device stand-in runs them as on a GPU, but for the device: so the script itself is tried.
# Steps' limits are for ten minutes and grow with --minutes.
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda
minutes=10
folder=
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    -*) echo "there is no option $1; options: --device cpu|cuda|stand-in, --minutes N" >&2; exit 2 ;;
    *) folder=$1; shift ;;
  esac
done
case $device in
  cpu | cuda | stand-in) ;;
  *) echo "--device is '$device'; it must be cpu, cuda or stand-in" >&2; exit 2 ;;
esac
folder=${folder:-gpu-check-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
end=$(($(date +%s) + minutes * 60))
steps=0 ok=0 failed=0 without=0

say() { echo "$1" | tee -a "$folder/summary.txt"; }
step() { # name, seconds at most of ten minutes, command…
  local name=$1 limit=$(($2 * minutes / 10)) left status start
  shift 2
  steps=$((steps + 1))
  start=$(date +%s)
  left=$((end - start))
  if [ "$left" -lt 5 ]; then
    say "skipped    $name: no time left"
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
  say "$word $name, $(($(date +%s) - start)) s"
}

built=cmake-build/test/native/cuda
runner=$built/gpu_runner
small=() few=()
export ZEROSHARD_CUDA=$PWD/build/Release/libzeroshard_cuda13.so
if [ "$device" != cuda ]; then # pretended devices are slow
  export ZEROSHARD_CUDA=$PWD/$built/libzeroshard_cuda13.so ZEROSHARD_CUBLASLT=$PWD/$built/libcublasLt.so
  small=(--small)
fi
runs_on=$device
[ "$device" = stand-in ] && runs_on=cuda few=(--steps 3)
export ZEROSHARD_TEST_DEVICE=$runs_on TAP_TIMEOUT=$((60 * minutes)) # tap ends a file after 30 s otherwise
on_device=(node --import tsx --import ./test/helpers/on-device.ts)
# Test files one by one; ends with the first status that is not 0, after all have run.
files="status=0; for file; do echo \"== \$file\"; ${on_device[*]} \$file || { now=\$?; [ \$status -ne 0 ] || status=\$now; }; done; exit \$status"

{
  date
  uname -a
  git rev-parse HEAD 2> /dev/null
  node --version
  if command -v nvidia-smi > /dev/null; then nvidia-smi; else echo "no nvidia-smi"; fi
} > "$folder/machine.txt" 2>&1
if [ ! -x "$runner" ]; then
  say "FAILED     no $runner; node scripts/native-tests.mjs builds it"
  failed=$((failed + 1))
fi

step doctor 15 node dist/cli/main.js doctor
# Each kernel's cases through the C ABI alone: the backend is judged apart from the core and from Node.
step kernels 60 "$runner" frame elementwise rows optimizers moves attention matmul
step kernels-own-attention 30 env ZEROSHARD_ATTENTION=own "$runner" attention
# Each operation against float64, then what is built of them.
# event-loop.test.ts is not among them: its measure is what the CPU's kernels take.
step op 110 bash -c "$files" bash $(ls test/op/*.test.ts | grep -v event-loop)
step op-own-attention 75 env ZEROSHARD_ATTENTION=own "${on_device[@]}" test/op/ops.test.ts
step op-serial 75 env ZEROSHARD_SERIAL=1 "${on_device[@]}" test/op/ops.test.ts
# A small model from the same seed on the device, serially too, and on the CPU: one loss curve.
step train 45 node scripts/gpu-train.mjs "$runs_on" "$folder/train" "${few[@]}"
step pressure 15 node --import tsx test/gpu/pressure.test.ts
step ranks 75 node --import tsx test/gpu/ranks.test.ts
step offload 40 node --import tsx test/ranks/offload.test.ts
# Memory errors and races of the kernels' cases. Races are of shared memory: of the families that use it.
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
for tool in memcheck racecheck initcheck synccheck; do
  run=()
  if [ "$device" = cuda ]; then
    if [ -z "$sanitizer" ]; then
      say "skipped    sanitizer-$tool: compute-sanitizer is not installed (it comes with the CUDA toolkit)"
      continue
    fi
    run=("$sanitizer" --tool "$tool" --error-exitcode 3)
  fi
  families=(rows moves attention)
  [ "$tool" = memcheck ] && families+=(elementwise optimizers)
  limit=35
  [ "$tool" = racecheck ] && limit=120 # 25 s of an H100 for rows alone
  step "sanitizer-$tool" "$limit" "${run[@]}" "$runner" "${families[@]}"
done
step figures-kernels 40 "$runner" figures "${small[@]}"
# Ceilings, then kernels as shares of them; the rest of the suite takes longer: npm run bench -- --device cuda.
bench=(--device cuda)
[ "$device" = cpu ] && bench=(--dry --nproc 2)
step figures 75 node --import tsx bench/run.ts "${bench[@]}" --out "$folder" ceilings kernels

say "$steps steps: $ok ok, $failed failed, $without without a device; all of it in $folder"
[ "$failed" -eq 0 ]
