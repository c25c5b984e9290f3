// `zeroshard train`: checks the configuration, then is one rank itself or starts the local ranks.

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ZeroshardError } from '../binding/errors.js'
import { applyOverrides, type Config, parseConfigText, requireForTrain, resolveConfig } from '../config/index.js'
import { joinWorld, leaveWorld } from '../engine/initialize.js'
import { launchLocal, readEnvironment } from '../launch/index.js'
import { checkDevice, trainRank } from './trainer.js'

export interface TrainFlags {
  nproc?: number
  device: string
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
  checkDevice(flags.device)
  const environment = readEnvironment()
  const started = environment.worldSize > 1 || environment.launched
  const worldSize = started ? environment.worldSize : (flags.nproc ?? 1)
  if (worldSize < 1) throw new ZeroshardError('ARGUMENT', `--nproc ${worldSize}: at least one rank is needed`)
  const config = await readConfig(path, flags, worldSize)
  if (!started && worldSize > 1) return startRanks(worldSize)
  const world = await joinWorld(flags.serial ? { serial: true } : {})
  try {
    const output = flags.output ? resolve(flags.output) : config.train.output
    const outcome = await trainRank(world, {
      config,
      output,
      version,
      quiet: flags.quiet ?? false,
      ...(flags.metrics ? { metrics: resolve(flags.metrics) } : {}),
      ...(flags.trace ? { trace: resolve(flags.trace) } : {}),
      ...(flags.resume ? { resume: flags.resume === true ? 'auto' : flags.resume } : {}),
    })
    return outcome === 'interrupted' ? 130 : 0
  } catch (error) {
    world.meeting.fail(error as Error)
    await leaveWorld(world).catch(() => {})
    throw error
  }
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
  if (result.message) process.stderr.write(`zeroshard: ${result.message}\n`)
  return result.status
}
