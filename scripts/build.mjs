// `npm run build`: the addon, then TypeScript to dist/.
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { root, run, tool } from './run.mjs'

run(process.execPath, ['scripts/native-build.mjs'])
tool('tsc', '-p', '.')
chmodSync(join(root, 'dist/cli/main.js'), 0o755)
