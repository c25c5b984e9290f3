// Starts the ranks of this machine and looks after them: signals are passed on, one that fails ends the others,
// and none outlives the launcher.

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { type AddressInfo, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { ZeroshardError } from '../binding/errors.js'

export interface LocalOptions {
  nproc: number
  command: string
  args: string[]
  env?: NodeJS.ProcessEnv
}

/** How the ranks ended: all well, or as the first that failed did. */
export interface LocalOutcome {
  /** 0, the exit status of the failed rank, 1 where a signal killed it, 130 after an interruption. */
  status: number
  failedRank?: number
  /** What killed it. */
  signal?: NodeJS.Signals
  /** Names the rank and how it ended; none after an interruption. */
  message?: string
  /** The end of its stderr, where that passed through the launcher (rank 0 has the terminal). */
  lastLines?: readonly string[]
}

/** Seconds that the others have to end by themselves after one failed; then SIGTERM, then SIGKILL. */
const GRACE = [5, 10]
/** After an interruption ranks may still be saving. */
const INTERRUPTED = 130
/** Lines of a rank's stderr that are kept for the end. */
const LAST_LINES = 8
/** ms that the output of a rank's own children may still take when the rank has ended. */
const LATE_OUTPUT = 1000
/** ms within which a rank is taken to have ended because of another that was killed. */
const TOGETHER = 500

interface Rank {
  readonly rank: number
  readonly child: ChildProcess
  readonly lastLines: string[]
}

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
  const ranks: Rank[] = []
  const signalAll = (signal: NodeJS.Signals): void => {
    for (const { child } of ranks) if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  }
  const passedOn = new Set<NodeJS.Signals>()
  let numSignals = 0
  const kill = (): void => {
    passedOn.add('SIGKILL')
    killGroups(ranks)
  }
  // The first asks, the second insists, and the third need not be heard by a rank that hangs.
  const passOn = (signal: NodeJS.Signals): void => {
    passedOn.add(signal)
    signalAll(signal)
    if (++numSignals === 2) timers.push(setTimeout(kill, (GRACE[1] as number) * 1000))
    if (numSignals > 2) kill()
  }
  const timers: NodeJS.Timeout[] = []
  // Before the first rank starts: from then on it is this process that must end them.
  process.on('SIGINT', passOn).on('SIGTERM', passOn)
  try {
    for (let rank = 0; rank < nproc; rank++) ranks.push(startRank(rank, command, args, shared))
    let first: Ended | undefined
    let failed = false
    await Promise.all(
      ranks.map(async (rank) => {
        const end = await ended(rank, passedOn)
        const { status } = end.outcome
        if (status === 0) return
        if (!first || cameFirst(end, first)) first = end
        if (status === INTERRUPTED || failed) return
        failed = true
        timers.push(
          setTimeout(signalAll, (GRACE[0] as number) * 1000, 'SIGTERM'),
          setTimeout(killGroups, (GRACE[1] as number) * 1000, ranks),
        )
      }),
    )
    return first?.outcome ?? { status: 0 }
  } catch (error) {
    killGroups(ranks)
    throw error
  } finally {
    for (const timer of timers) clearTimeout(timer)
    process.off('SIGINT', passOn).off('SIGTERM', passOn)
  }
}

/** Its own session, so that a terminal's Ctrl-C reaches it once, through the launcher. */
function startRank(rank: number, command: string, args: string[], env: NodeJS.ProcessEnv): Rank {
  const own = { ...env, RANK: String(rank), LOCAL_RANK: String(rank) }
  const lastLines: string[] = []
  if (rank === 0) {
    const stdio = ['inherit', 'inherit', 'inherit', 'ipc'] as const
    return { rank, child: spawn(command, args, { env: own, stdio: [...stdio], detached: true }), lastLines }
  }
  const child = spawn(command, args, { env: own, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], detached: true })
  const relay = (from: Readable, to: NodeJS.WriteStream, onLine: (line: string) => void = () => {}): void => {
    createInterface({ input: from }).on('line', (line) => {
      to.write(`[rank ${rank}] ${line}\n`)
      onLine(line)
    })
  }
  relay(child.stdout as Readable, process.stdout)
  relay(child.stderr as Readable, process.stderr, (line) => {
    lastLines.push(line)
    if (lastLines.length > LAST_LINES) lastLines.shift()
  })
  return { rank, child, lastLines }
}

/** Kills ranks that are still there, with all processes that they started (in their own process groups, no other). */
function killGroups(ranks: readonly Rank[]): void {
  for (const { child } of ranks) {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {} // it ended meanwhile
  }
}

interface Ended {
  outcome: LocalOutcome
  /** ms; of the exit itself, whose output may still come. */
  at: number
}

/** Of two that failed. A killed rank is the cause of what the others tell, though their exits may be seen with its own. */
function cameFirst(a: Ended, b: Ended): boolean {
  const [aIsLeft, bIsLeft] = [a, b].map(({ outcome }) => outcome.status === INTERRUPTED)
  if (aIsLeft || bIsLeft) return !aIsLeft
  const lead = TOGETHER * (Number(a.outcome.signal !== undefined) - Number(b.outcome.signal !== undefined))
  return a.at < b.at + lead
}

function ended({ rank, child, lastLines }: Rank, passedOn: ReadonlySet<NodeJS.Signals>): Promise<Ended> {
  return new Promise((resolve, reject) => {
    let at = 0
    const done = (outcome: LocalOutcome): void => resolve({ outcome, at })
    child.once('error', (cause) =>
      reject(new ZeroshardError('IO', `rank ${rank} could not be started: ${cause.message}`, { cause })),
    )
    const end = (status: number | null, signal: NodeJS.Signals | null): void => {
      const interrupted = signal ? passedOn.has(signal) : passedOn.size > 0 && status === INTERRUPTED
      if (interrupted) done({ status: INTERRUPTED, failedRank: rank, ...(signal && { signal }) })
      else if (signal) {
        const message = `rank ${rank} was killed by ${signal}${signal === 'SIGKILL' ? ' (out of memory?)' : ''}`
        done({ status: 1, failedRank: rank, signal, message, lastLines })
      } else {
        const message = `rank ${rank} failed first, with exit status ${status}`
        done({ status: status as number, failedRank: rank, message, lastLines })
      }
    }
    child.once('close', end)
    // A process that the rank left behind may hold its output open: then it is let go of.
    child.once('exit', () => {
      at = performance.now()
      const letGo = (): void => {
        for (const stream of [child.stdout, child.stderr]) stream?.destroy()
      }
      setTimeout(letGo, LATE_OUTPUT).unref()
    })
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

const leave = (): void => process.exit(1)

/** In a rank: ends this process when its launcher is gone, however it went; also where it went before this call. */
export function exitWithParent(): void {
  if (process.connected === false) process.exit(1)
  if (!process.channel || process.listeners('disconnect').includes(leave)) return
  process.on('disconnect', leave)
  process.channel.unref()
}
