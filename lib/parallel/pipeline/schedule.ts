// What every schedule has in common. A schedule decides only the order of a stage's computations; the transfers follow
// from it: an input is received just before it is used, a result is sent as soon as it exists.

import { ZeroshardError } from '../../binding/errors.js'
import type { Computation, Instruction, Transfer } from './instruction.js'
import { neighboursOf, type Placement } from './placement.js'

/** The three numbers that a list of instructions depends on. */
type ForStage<T> = (stages: number, microBatches: number, stage: number) => T

export interface ScheduleRule {
  name: string
  numChunks: number
  layout: Placement['layout']
  /** No backward: evaluation. */
  forwardOnly: boolean
  /** The computations of a stage, in order. */
  order: ForStage<Computation[]>
  /**
   * The promise: most pairs (chunk, micro-batch) whose activations a stage holds at once, from their forward to the
   * end of their backward. With more than one chunk each is that fraction of a stage's layers.
   */
  maxActivations: ForStage<number>
}

/** A pure function from (stages, micro-batches, stage) to a list, and what it promises. */
export interface Schedule extends Omit<ScheduleRule, 'order'> {
  instructions: ForStage<Instruction[]>
}

/** All lists of one pipeline: what the checker and the simulator take. */
export interface Pipeline extends Placement {
  name: string
  microBatches: number
  forwardOnly: boolean
  /** Per stage. */
  lists: Instruction[][]
  /** Per stage. */
  maxActivations: number[]
}

export function defineSchedule(rule: ScheduleRule): Schedule {
  const { order, ...rest } = rule
  return {
    ...rest,
    instructions(stages, microBatches, stage) {
      validate(rule.name, stages, microBatches, stage)
      const placement = { stages, numChunks: rule.numChunks, layout: rule.layout }
      return addTransfers(order(stages, microBatches, stage), placement, microBatches, stage, rule.forwardOnly)
    },
  }
}

/** The lists of all stages. */
export function buildPipeline(schedule: Schedule, stages: number, microBatches: number): Pipeline {
  validate(schedule.name, stages, microBatches, 0)
  const { name, numChunks, layout, forwardOnly } = schedule
  const perStage = <T>(f: ForStage<T>): T[] => Array.from({ length: stages }, (_, s) => f(stages, microBatches, s))
  return {
    ...{ name, stages, microBatches, numChunks, layout, forwardOnly },
    lists: perStage(schedule.instructions),
    maxActivations: perStage(schedule.maxActivations),
  }
}

function validate(name: string, stages: number, microBatches: number, stage: number): void {
  const counts = { stages, 'micro-batches': microBatches }
  for (const [what, count] of Object.entries(counts)) {
    if (Number.isSafeInteger(count) && count > 0) continue
    throw new ZeroshardError('ARGUMENT', `[${name}] ${what} must be a whole number above 0, not ${count}`)
  }
  if (Number.isInteger(stage) && stage >= 0 && stage < stages) return
  throw new ZeroshardError('ARGUMENT', `[${name}] there is no stage ${stage} of ${stages}; they count from 0`)
}

function addTransfers(
  order: readonly Computation[],
  placement: Placement,
  microBatches: number,
  stage: number,
  forwardOnly: boolean,
): Instruction[] {
  const list: Instruction[] = []
  const neighbours = neighboursOf(placement, stage)
  const transfer = (op: Transfer['op'], { chunk, microBatch }: Computation, peer: number | undefined): void => {
    // A neighbour on the same stage hands over in memory.
    if (peer !== undefined && peer !== stage) list.push({ op, chunk, microBatch, peer })
  }
  const missing = new Array<number>(placement.numChunks).fill(microBatches)
  for (const computation of order) {
    const { op, chunk } = computation
    const { previous, next } = neighbours[chunk] as (typeof neighbours)[number]
    if (op === 'forward') {
      transfer('recvForward', computation, previous?.stage)
      list.push(computation)
      transfer('sendForward', computation, next?.stage)
      continue
    }
    if (op !== 'backwardWeight') transfer('recvBackward', computation, next?.stage)
    list.push(computation)
    if (op !== 'backwardWeight') transfer('sendBackward', computation, previous?.stage)
    if (op !== 'backwardInput' && --(missing[chunk] as number) === 0) list.push({ op: 'reduceGradients', chunk })
  }
  if (!forwardOnly) list.push({ op: 'step' })
  return list
}
