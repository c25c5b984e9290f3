// `npm pack`: a clean dist/ and the addon of this platform in prebuilds/.
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { root, run, tool } from './run.mjs'

for (const path of ['dist', 'prebuilds', 'build/dist.tsbuildinfo'])
  rmSync(join(root, path), { recursive: true, force: true })
// node-gyp wants Node's headers although nothing of it compiles; use those of this Node where they are.
const prefix = join(process.execPath, '../..')
if (existsSync(join(prefix, 'include/node/node_api.h'))) process.env.npm_config_nodedir = prefix
tool('prebuildify', '--napi', '--strip', '--tag-libc', '--target', process.versions.node)
run(process.execPath, ['scripts/build.mjs'])
