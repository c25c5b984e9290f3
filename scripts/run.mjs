// Runs commands for the other scripts: output to stderr (stdout stays free for JSON), the first failure ends all.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

export function run(command, args, env = process.env) {
  const { status, error } = spawnSync(command, args, { cwd: root, env, stdio: ['ignore', 2, 2] })
  if (error) console.error(`${command}: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

/** A tool of node_modules. */
export const tool = (name, ...args) => run(join(root, 'node_modules/.bin', name), args)
