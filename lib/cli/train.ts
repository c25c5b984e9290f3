// `zeroshard train`: checks the configuration, then is one rank itself or starts the local ranks.

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ZeroshardError } from '../binding/errors.js'
import { binding, type Device } from '../binding/native.js'
import { applyOverrides, type Config, parseConfigText, requireForTrain, resolveConfig } from '../config/index.js'
import { joinWorld, leaveWorld } from '../engine/initialize.js'
import { launchLocal, type RankEnvironment, readEnvironment } from '../launch/index.js'
import { INTERRUPTED, Interruption } from './interruption.js'
import { trainRank } from './trainer.js'

export interface TrainFlags {
  nproc?: number
  device?: Device
  steps?: number
  seed?: number
  set: string[]
  output?: string
  resume?: string | true
  metrics?: string
  trace?: string
  quiet?: boolean
  serial?: boolean
}

/** Resolves with the exit status. */
export async function train(path: string, flags: TrainFlags, version: string): Promise<number> {
  const environment = readEnvironment()
  const device = flags.device ?? environment.device
  const devices = device === 'cuda' ? countDevices() : 1
  const started = environment.worldSize > 1 || environment.launched
  const worldSize = started ? environment.worldSize : (flags.nproc ?? devices)
  if (worldSize < 1) throw new ZeroshardError('ARGUMENT', `--nproc ${worldSize}: at least one rank is needed`)
  const config = await readConfig(path, flags, worldSize)
  if (!started && worldSize > 1) return startRanks(worldSize)
  const interruption = new Interruption(() => {
    if (environment.rank === 0 && !flags.quiet)
      process.stderr.write('zeroshard: interrupted before training began; nothing was saved\n')
  })
  try {
    return await runRank(config, flags, version, interruption)
  } catch (error) {
    // A rank that was interrupted while it started has ended, and the others cannot begin without it.
    if (interruption.wanted && !interruption.allDefer) return INTERRUPTED
    throw ofRank(error, environment)
  } finally {
    interruption.close()
  }
}

/** @throws DEVICE where there are none. */
function countDevices(): number {
  const { devices, reason } = binding().native.devices()
  if (devices.length === 0) throw new ZeroshardError('DEVICE', `--device cuda: ${reason}`)
  return devices.length
}

async function runRank(
  config: Config,
  flags: TrainFlags,
  version: string,
  interruption: Interruption,
): Promise<number> {
  const world = await joinWorld({ ...(flags.serial && { serial: true }), device: flags.device })
  try {
    const output = flags.output ? resolve(flags.output) : config.train.output
    const outcome = await trainRank(
      world,
      {
        config,
        output,
        version,
        quiet: flags.quiet ?? false,
        ...(flags.metrics ? { metrics: resolve(flags.metrics) } : {}),
        ...(flags.trace ? { trace: resolve(flags.trace) } : {}),
        ...(flags.resume ? { resume: flags.resume === true ? 'auto' : flags.resume } : {}),
      },
      interruption,
    )
    return outcome === 'interrupted' ? INTERRUPTED : 0
  } catch (error) {
    await leaveWorld(world).catch(() => {})
    throw error
  }
}

/** The error, its message beginning with the rank where there are several. */
function ofRank(error: unknown, { rank, worldSize }: RankEnvironment): unknown {
  if (error instanceof Error && worldSize > 1 && !/^rank \d+: /.test(error.message))
    error.message = `rank ${rank}: ${error.message}`
  return error
}

async function readConfig(path: string, flags: TrainFlags, worldSize: number): Promise<Config> {
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new ZeroshardError('CONFIG', `${path}: ${cause.message}`, { cause })
  })
  const sets = [...flags.set]
  if (flags.steps !== undefined) sets.push(`train.steps=${flags.steps}`)
  if (flags.seed !== undefined) sets.push(`train.seed=${flags.seed}`)
  const raw = applyOverrides(parseConfigText(text, path), sets)
  const config = resolveConfig(raw, { source: path, directory: dirname(resolve(path)), worldSize })
  requireForTrain(config, path)
  return config
}

/** The same command on every local rank; rank 0 has the terminal. */
async function startRanks(nproc: number): Promise<number> {
  const result = await launchLocal({
    nproc,
    command: process.execPath,
    args: [
      ...process.execArgv,
      fileURLToPath(import.meta.url).replace(/train\.(js|ts)$/, 'main.$1'),
      ...process.argv.slice(2),
    ],
  })
  if (result.message && result.signal) process.stderr.write(`zeroshard: ${result.message}\n`)
  return result.status
}
