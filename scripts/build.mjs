// `npm run build`: the addon, with the CUDA backend where nvcc 13 is (ZS_CUDA=ON insists on it, OFF leaves it out), then
// TypeScript to dist/. `--quick`: with the CUDA backend only where it was built before; its kernels take minutes.
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { root, run, tool } from './run.mjs'

if (process.argv.includes('--quick')) process.env.ZS_CUDA ??= 'KEEP'
run(process.execPath, ['scripts/native-build.mjs'])
tool('tsc', '-p', '.')
chmodSync(join(root, 'dist/cli/main.js'), 0o755)
