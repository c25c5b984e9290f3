// `npm run setup`: what building needs, installed where that is possible, named where it is not. Idempotent.
import { spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { root, run } from './run.mjs'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 11)) {
  console.error(`zeroshard needs Node 20.11 or newer, this is ${process.version}; see https://nodejs.org`)
  process.exit(1)
}

const found = (command) => spawnSync('sh', ['-c', `command -v ${command}`]).status === 0
const needed = [
  ['cmake', 'cmake'],
  ['make', 'make'],
  ['c++', 'g++'],
  ['python3', 'python3'],
]
const missing = needed.filter(([command]) => !found(command)).map(([, name]) => name)
if (missing.length) {
  if (process.getuid?.() === 0 && found('apt-get')) {
    run('apt-get', ['update', '-qq'])
    run('apt-get', ['install', '-y', '-qq', ...missing])
  } else {
    console.error(
      `missing: ${missing.join(', ')}; install with: sudo apt-get install ${missing.join(' ')} (or your system's equivalent)`,
    )
    process.exit(1)
  }
}

// npm writes node_modules/.package-lock.json when it is done: newer than the lock means nothing changed since.
const [lock, installed] = ['package-lock.json', 'node_modules/.package-lock.json'].map((name) => join(root, name))
if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
  run('npm', ['ci', '--no-audit', '--no-fund'])
}
