// Builds the addon with cmake-js (incrementally, in cmake-build/) and puts it into a folder, build/Release if none is given.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { root, run } from './run.mjs'

const folder = resolve(root, process.argv[2] ?? 'build/Release')
const { MAKEFLAGS, MFLAGS, MAKELEVEL, ...env } = process.env // make's own, where node-gyp called us
// ZS_CUDA=ON: no build without the CUDA backend; OFF: without it; KEEP: as before; otherwise with it where there is nvcc.
const cache = join(root, 'cmake-build/CMakeCache.txt')
const before = existsSync(cache) ? /^ZS_CUDA:\w+=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1] : undefined
const cuda = env.ZS_CUDA === 'KEEP' ? (before ?? 'OFF') : (env.ZS_CUDA ?? 'AUTO')
const options = ['-O', 'cmake-build', '--log-level', 'error', `--CDZS_CUDA=${cuda}`]
const cmake = (command) => run(join(root, 'node_modules/.bin/cmake-js'), [command, ...options], env)
// What is configured is not configured anew by itself.
if (before !== undefined && before !== cuda) cmake('configure')
cmake('compile')
mkdirSync(folder, { recursive: true })
// Renamed into place: a process that has the old one mapped keeps it. Without nvcc there is no CUDA backend.
const built = join(root, 'cmake-build/Release')
if (cuda === 'OFF') rmSync(join(built, 'libzeroshard_cuda13.so'), { force: true })
for (const name of ['zeroshard.node', 'libzeroshard_cuda13.so']) {
  if (!existsSync(join(built, name))) {
    rmSync(join(folder, name), { force: true })
    continue
  }
  copyFileSync(join(built, name), join(folder, `${name}.new`))
  renameSync(join(folder, `${name}.new`), join(folder, name))
}
