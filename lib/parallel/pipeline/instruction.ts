// What one stage of a pipeline does, one instruction after the other. A schedule writes lists of these, the checker
// proves them, the simulator times them and the runner executes them.
// `chunk` is always the chunk of the stage that executes the instruction: the one that made what is sent, or will use
// what is received. `peer` is a rank on the pipeline axis.

/** Work on one micro-batch with the parameters of one chunk. */
export interface Computation {
  /**
   * - `forward`: runs the chunk on what was received, or on the data in the first virtual stage
   * - `backward`: the gradients of input and weights at once; from the loss in the last virtual stage
   * - `backwardInput`, `backwardWeight`: the same in two parts, so that the second can wait (zero bubble)
   */
  op: 'forward' | 'backward' | 'backwardInput' | 'backwardWeight'
  chunk: number
  microBatch: number
}

/** Activations to the next virtual stage, gradients to the previous. A send does not wait for its receiver. */
export interface Transfer {
  op: 'sendForward' | 'recvForward' | 'sendBackward' | 'recvBackward'
  chunk: number
  microBatch: number
  peer: number
}

export type Instruction =
  | Computation
  | Transfer
  /** The gradients of the chunk are complete. */
  | { op: 'reduceGradients'; chunk: number }
  /** The optimizer's step: last, and absent where there is no backward. */
  | { op: 'step' }

export const isSend = ({ op }: Transfer): boolean => op === 'sendForward' || op === 'sendBackward'
export const isForward = ({ op }: Transfer): boolean => op === 'sendForward' || op === 'recvForward'

/** An instruction in words, for messages: `recvForward of chunk 0, micro-batch 3, peer 1`. */
export function describe(instruction: Instruction): string {
  if (instruction.op === 'step') return 'step'
  if (instruction.op === 'reduceGradients') return `reduceGradients of chunk ${instruction.chunk}`
  const { op, chunk, microBatch } = instruction
  const peer = 'peer' in instruction ? `, peer ${instruction.peer}` : ''
  return `${op} of chunk ${chunk}, micro-batch ${microBatch}${peer}`
}
