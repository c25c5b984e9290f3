// Which part of the model lies on which stage. The model is cut into stages × chunks virtual stages, in the order of
// the forward; a chunk of a stage is one of them.
//
//   loop, 3 stages, 2 chunks          vee, 3 stages
//   stage 0:  0  3                    stage 0:  0  5
//   stage 1:  1  4                    stage 1:  1  4
//   stage 2:  2  5                    stage 2:  2  3   (2 → 3 stays on the stage)

import { isForward, isSend, type Transfer } from './instruction.js'

export interface Placement {
  stages: number
  numChunks: number
  /** `loop`: chunk c of stage s is virtual stage c·stages + s. `vee`: chunk 0 goes down, chunk 1 comes back. */
  layout: 'loop' | 'vee'
}

export function virtualStageOf({ stages, layout }: Placement, chunk: number, stage: number): number {
  return layout === 'vee' && chunk === 1 ? 2 * stages - 1 - stage : chunk * stages + stage
}

export function locate({ stages, layout }: Placement, virtualStage: number): Neighbour {
  const chunk = Math.floor(virtualStage / stages)
  const place = virtualStage % stages
  return { chunk, stage: layout === 'vee' && chunk === 1 ? stages - 1 - place : place }
}

export interface Neighbour {
  chunk: number
  stage: number
}

/** A chunk's neighbours along the model: undefined at the ends of it. */
export interface Neighbours {
  previous: Neighbour | undefined
  next: Neighbour | undefined
}

/** The neighbours of each chunk of a stage. */
export function neighboursOf(placement: Placement, stage: number): Neighbours[] {
  const last = placement.stages * placement.numChunks - 1
  return Array.from({ length: placement.numChunks }, (_, chunk) => {
    const own = virtualStageOf(placement, chunk, stage)
    return {
      previous: own === 0 ? undefined : locate(placement, own - 1),
      next: own === last ? undefined : locate(placement, own + 1),
    }
  })
}

/** A number for each message of a pipeline, the same for its sender and its receiver. */
export function messageOf(placement: Placement, microBatches: number, stage: number, transfer: Transfer): number {
  const own = virtualStageOf(placement, transfer.chunk, stage)
  const forward = isForward(transfer)
  const sender = isSend(transfer) ? own : forward ? own - 1 : own + 1
  return (sender * microBatches + transfer.microBatch) * 2 + Number(forward)
}
