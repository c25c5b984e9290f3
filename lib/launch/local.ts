// Starts the ranks of this machine and looks after them: signals are passed on, one that fails ends the others,
// and none outlives the launcher.

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { type AddressInfo, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { ZeroshardError } from '../binding/errors.js'

export interface LocalOptions {
  nproc: number
  command: string
  args: string[]
  env?: NodeJS.ProcessEnv
}

export interface LocalOutcome {
  /** 0, or the exit status of the first rank that failed (1 where a signal killed it). */
  status: number
  failedRank?: number
  signal?: NodeJS.Signals
  /** Said only where the rank could not say it itself. */
  message?: string
}

/** Seconds that the others have to end by themselves after one failed; then SIGTERM, then SIGKILL. */
const GRACE = [5, 10]
/** After an interruption ranks may still be saving. */
const INTERRUPTED = 130

/** Runs one process per rank. Rank 0 has the terminal, lines of the others begin with their rank. */
export async function launchLocal({ nproc, command, args, env = process.env }: LocalOptions): Promise<LocalOutcome> {
  if (nproc < 1) throw new ZeroshardError('ARGUMENT', `--nproc ${nproc}: at least one rank is needed`)
  const shared = {
    ...env,
    WORLD_SIZE: String(nproc),
    LOCAL_WORLD_SIZE: String(nproc),
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(await freePort()),
    ZEROSHARD_SECRET: randomBytes(16).toString('hex'),
    ZEROSHARD_CHILD: '1',
  }
  const children = Array.from({ length: nproc }, (_, rank) => startRank(rank, command, args, shared))
  const signalAll = (signal: NodeJS.Signals): void => {
    for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  }
  const passOn = (signal: NodeJS.Signals): void => signalAll(signal)
  process.on('SIGINT', passOn).on('SIGTERM', passOn)
  const timers: NodeJS.Timeout[] = []
  try {
    let first: LocalOutcome | undefined
    await Promise.all(
      children.map(async (child, rank) => {
        const outcome = await ended(child, rank)
        const interrupted = outcome.status === INTERRUPTED
        if (outcome.status === 0 || (first && (interrupted || first.status !== INTERRUPTED))) return
        first = outcome
        if (interrupted) return
        timers.push(
          setTimeout(signalAll, (GRACE[0] as number) * 1000, 'SIGTERM'),
          setTimeout(signalAll, (GRACE[1] as number) * 1000, 'SIGKILL'),
        )
      }),
    )
    return first ?? { status: 0 }
  } finally {
    for (const timer of timers) clearTimeout(timer)
    process.off('SIGINT', passOn).off('SIGTERM', passOn)
  }
}

/** Its own session, so that a terminal's Ctrl-C reaches it once, through the launcher. */
function startRank(rank: number, command: string, args: string[], env: NodeJS.ProcessEnv): ChildProcess {
  const own = { ...env, RANK: String(rank), LOCAL_RANK: String(rank) }
  if (rank === 0)
    return spawn(command, args, { env: own, stdio: ['inherit', 'inherit', 'inherit', 'ipc'], detached: true })
  const child = spawn(command, args, { env: own, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], detached: true })
  for (const [from, to] of [
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ] as const) {
    createInterface({ input: from as NodeJS.ReadableStream }).on('line', (line) => to.write(`[rank ${rank}] ${line}\n`))
  }
  return child
}

function ended(child: ChildProcess, rank: number): Promise<LocalOutcome> {
  return new Promise((done, reject) => {
    child.once('error', (cause) =>
      reject(new ZeroshardError('IO', `rank ${rank} could not be started: ${cause.message}`, { cause })),
    )
    child.once('close', (status, signal) =>
      done(
        signal
          ? {
              status: 1,
              failedRank: rank,
              signal,
              message: `rank ${rank} was killed by ${signal}${signal === 'SIGKILL' ? ' (out of memory?)' : ''}`,
            }
          : { status: status as number, failedRank: rank },
      ),
    )
  })
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  await new Promise((done) => server.close(done))
  return port
}

/** In a rank: ends this process when its launcher is gone, however it went. */
export function exitWithParent(): void {
  if (!process.channel) return
  process.on('disconnect', () => process.exit(1))
  process.channel.unref()
}
