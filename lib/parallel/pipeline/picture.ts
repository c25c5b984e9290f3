// A simulated pipeline as text, one row per stage. A cell of two characters is one slot of time:
//
//   stage 0 |F0F1····B0--F2B1--··B2--| 25% idle, 2 held
//   stage 1 |··F0B0--F1B1--F2B2--····| 25% idle, 1 held
//
// F forward, B backward or input gradient, W weight gradient; small letters are odd chunks; the digit is the micro-batch
// modulo 10; `--` goes on with the one before, `··` idles.

import type { Computation, Instruction } from './instruction.js'
import type { Pipeline } from './schedule.js'
import type { Simulation } from './simulator.js'

export interface PictureOptions {
  /** Time per slot. Default: the shortest computation. With a longer one a cell shows what runs in its middle. */
  slot?: number
  /** Default 100; `…` where the picture is cut off. */
  maxSlots?: number
  /** ANSI colours. Default false. */
  colours?: boolean
}

const LETTERS = { forward: 'F', backward: 'B', backwardInput: 'B', backwardWeight: 'W' } as const
/** ANSI background: blue, green, green, yellow. */
const BACKGROUNDS = { forward: 44, backward: 42, backwardInput: 42, backwardWeight: 43 } as const

export function drawPipeline(pipeline: Pipeline, simulation: Simulation, options: PictureOptions = {}): string {
  const { maxSlots = 100, colours = false } = options
  const slot = options.slot ?? shortest(pipeline, simulation)
  // The small number keeps rounding from adding a slot.
  const needed = slot > 0 ? Math.ceil(simulation.total / slot - 1e-9) : 0
  const numSlots = Math.min(maxSlots, needed)
  const end = needed > numSlots ? '…' : ''
  const width = String(pipeline.stages - 1).length
  return pipeline.lists
    .map((_, stage) => {
      const cells = drawStage(pipeline, simulation, stage, slot, numSlots, colours)
      const idle = `${Math.round((simulation.stageBubbles[stage] as number) * 100)}% idle`
      return `stage ${String(stage).padStart(width)} |${cells}${end}| ${idle}, ${simulation.peakActivations[stage]} held`
    })
    .join('\n')
}

function drawStage(
  pipeline: Pipeline,
  simulation: Simulation,
  stage: number,
  slot: number,
  numSlots: number,
  colours: boolean,
): string {
  const computations = computationsOf(pipeline, simulation, stage)
  let cells = ''
  let at = 0
  let shown = -1
  for (let i = 0; i < numSlots; i++) {
    const middle = (i + 0.5) * slot
    while (at < computations.length && (computations[at]?.end as number) <= middle) at++
    const current = computations[at]
    if (!current || current.start > middle) {
      cells += '··'
      continue
    }
    const text = shown === at ? '--' : labelOf(current.computation)
    shown = at
    cells += colours ? `\u001b[30;${BACKGROUNDS[current.computation.op]}m${text}\u001b[0m` : text
  }
  return cells
}

function labelOf({ op, chunk, microBatch }: Computation): string {
  const letter = LETTERS[op]
  return `${chunk % 2 ? letter.toLowerCase() : letter}${microBatch % 10}`
}

interface Timed {
  computation: Computation
  start: number
  end: number
}

function computationsOf(pipeline: Pipeline, simulation: Simulation, stage: number): Timed[] {
  return (pipeline.lists[stage] as Instruction[]).flatMap((instruction, i) =>
    instruction.op in LETTERS
      ? {
          computation: instruction as Computation,
          start: simulation.starts[stage]?.[i] as number,
          end: simulation.ends[stage]?.[i] as number,
        }
      : [],
  )
}

function shortest(pipeline: Pipeline, simulation: Simulation): number {
  let least = simulation.total
  for (const stage of pipeline.lists.keys()) {
    for (const { start, end } of computationsOf(pipeline, simulation, stage)) {
      if (end > start) least = Math.min(least, end - start)
    }
  }
  return least
}
