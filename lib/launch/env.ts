// Where this process stands among the ranks: torchrun's environment variables, and ours.

import { ZeroshardError } from '../binding/errors.js'
import type { Device } from '../binding/native.js'

export interface RankEnvironment {
  rank: number
  worldSize: number
  localRank: number
  localWorldSize: number
  masterAddress: string
  masterPort: number
  /** Shared by the ranks of one job; a connection without it is refused. */
  secret: string
  /** One stream for everything. */
  serial: boolean
  timeoutSeconds: number
  /** Threads of the kernels, where the user says so. */
  threads: number | undefined
  /** Bytes that this rank's tensors may take, offloaded ones included, where the user says so. */
  memoryLimit: number | undefined
  /** Where the tensors are, where the user says so. */
  device: Device | undefined
  /** True where our launcher started this process. */
  launched: boolean
}

export const defaultPort = 29500

/** @throws ARGUMENT where a variable is no number, or they contradict each other. */
export function readEnvironment(env: NodeJS.ProcessEnv = process.env): RankEnvironment {
  const whole = <T>(name: string, fallback: T, min = 0): number | T => {
    const text = env[name]
    if (text === undefined || text === '') return fallback
    const value = Number(text)
    if (!Number.isInteger(value) || value < min) {
      throw new ZeroshardError(
        'ARGUMENT',
        `environment variable ${name} is '${text}'; it must be an integer, at least ${min}`,
      )
    }
    return value
  }
  const worldSize = whole('WORLD_SIZE', 1, 1)
  const rank = whole('RANK', 0)
  if (rank >= worldSize)
    throw new ZeroshardError(
      'ARGUMENT',
      `environment variable RANK is ${rank}, but WORLD_SIZE is ${worldSize}; ranks count from 0`,
    )
  return {
    rank,
    worldSize,
    localRank: whole('LOCAL_RANK', rank),
    localWorldSize: whole('LOCAL_WORLD_SIZE', worldSize, 1),
    masterAddress: env.MASTER_ADDR || '127.0.0.1',
    masterPort: whole('MASTER_PORT', defaultPort, 1),
    secret: env.ZEROSHARD_SECRET ?? '',
    serial: env.ZEROSHARD_SERIAL === '1',
    timeoutSeconds: whole('ZEROSHARD_TIMEOUT', 600, 1),
    threads: whole('ZEROSHARD_NUM_THREADS', undefined, 1),
    memoryLimit: whole('ZEROSHARD_MEMORY_LIMIT', undefined, 1),
    device: oneDevice(env.ZEROSHARD_DEVICE),
    launched: env.ZEROSHARD_CHILD === '1',
  }
}

function oneDevice(text: string | undefined): Device | undefined {
  if (text === undefined || text === '') return undefined
  if (text === 'cpu' || text === 'cuda') return text
  throw new ZeroshardError('ARGUMENT', `environment variable ZEROSHARD_DEVICE is '${text}'; it must be cpu or cuda`)
}
