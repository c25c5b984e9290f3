// A Node process of a test's own. tap puts its hooks into NODE_OPTIONS of every process that a test starts, whatever
// environment that is given, and from there into those that it starts in turn: more than twice the processor time of a
// short run. `env` takes them out again; it becomes the process, which keeps its number.

import { type ChildProcessByStdio, type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import type { Readable } from 'node:stream'

/** What comes before Node's arguments. */
export const nodeCommand = ['env', '-u', 'NODE_OPTIONS', process.execPath] as const
const [command, ...first] = nodeCommand

/** Its output is piped. */
export const startNode = (args: string[], options: SpawnOptions = {}): ChildProcessByStdio<null, Readable, Readable> =>
  spawn(command, [...first, ...args], { ...options, stdio: ['ignore', 'pipe', 'pipe'] })

/** Waits for its end. */
export const runNode = (args: string[], options: { env?: NodeJS.ProcessEnv; cwd?: string; timeout?: number } = {}) =>
  spawnSync(command, [...first, ...args], { ...options, encoding: 'utf8' })
