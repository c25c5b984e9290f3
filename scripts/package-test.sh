#!/usr/bin/env bash
# Packs, installs the tarball in an empty folder, and trains from it with no compiler on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm pack --silent --pack-destination "$folder" > /dev/null
mkdir "$folder/user"
cd "$folder/user"
echo '{ "name": "user", "private": true, "type": "module" }' > package.json
npm install --silent --ignore-scripts --no-audit --no-fund "$folder"/zeroshard-*.tgz
for i in $(seq 400); do echo "the whale and the captain of ship $i look at the sea."; done > text.txt
cat > config.json <<'JSON'
{
  "model": { "config": { "model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 32, "vocab_size": 256 } },
  "data": { "train": ["text.txt"], "tokenizer": "byte" },
  "train": { "steps": 20 },
  "train_batch_size": 8,
  "zero_optimization": { "stage": 1 }
}
JSON
node=$(dirname "$(readlink -f "$(command -v node)")")
env -i PATH="$node:/nonexistent" HOME="$folder" node node_modules/zeroshard/dist/cli/main.js doctor | tee doctor.txt
# Where CI has built the CUDA backend, it is in the package and opens.
[ "${ZS_CUDA:-}" != ON ] || grep -qE '^cuda +backend .*prebuilds/' doctor.txt
env -i PATH="$node:/nonexistent" HOME="$folder" node node_modules/zeroshard/dist/cli/main.js train config.json --nproc 2 --quiet --metrics m.jsonl
grep -q '"step":20,' m.jsonl
echo "the package works"
