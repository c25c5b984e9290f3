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
# What is compiled asks for nothing newer than glibc 2.34 (RHEL 9, Ubuntu 22.04), nor for a libstdc++ at all.
newest_glibc=GLIBC_2.34
for file in node_modules/zeroshard/prebuilds/*/*.node node_modules/zeroshard/prebuilds/*/*.so; do
  [ -e "$file" ] || continue
  asks=$(objdump -T "$file" | grep -oE 'GLIBC(XX)?_[0-9.]+' | sort -Vu)
  newest=$( (echo "$newest_glibc" && grep -v GLIBCXX <<< "$asks") | sort -V | tail -1)
  if [ "$newest" != "$newest_glibc" ] || grep -q GLIBCXX <<< "$asks"; then
    echo "$file asks for $newest and $(grep -c GLIBCXX <<< "$asks") versions of libstdc++; $newest_glibc and none are the limit:"
    objdump -T "$file" | grep -E "$newest|GLIBCXX" | head -5
    exit 1
  fi
done
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
