// One loss of several engines' models, in one process: the backward of one engine goes through the others, which join
// it where it reaches their outputs. Outside of all models gradients have the leader's scale, inside each its own, so
// that engines with other loss scales or numbers of accumulation steps are trained right. With one engine: nothing.

import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'

/** An engine, as another one's backward sees it. */
export interface Participant {
  /** What its gradients are multiplied by: the loss scale, over the number of accumulation steps. */
  gradientScale(scaleForAccumulation: boolean): number
  /** Another's backward of `loss` has come to its model. */
  join(loss: Tensor): void
  /** That backward is over. */
  leave(): void
  /** That backward has failed, whether it had come to this model or not. */
  giveUp(error: unknown): void
}

interface Backward {
  leader: Participant
  scale: number
  scaleForAccumulation: boolean
  loss: Tensor
  guests: Set<Participant>
}

/** Of this process, in the order in which they were made: the same on every rank. */
const engines = new Set<Participant>()
let running: Backward | undefined

export const enter = (engine: Participant): unknown => engines.add(engine)

export function exit(engine: Participant): void {
  engines.delete(engine)
  if (running?.leader === engine) endBackward(engine)
}

/** Whether other engines may have a part in a backward. */
export const isAlone = (): boolean => engines.size < 2

/** `leader` begins a backward of `loss` (of which a view is kept until endBackward). */
export function beginBackward(leader: Participant, loss: Tensor, scaleForAccumulation: boolean): void {
  if (engines.size < 2) return
  if (running) endBackward(running.leader)
  const scale = leader.gradientScale(scaleForAccumulation)
  const view = unscoped(() => loss.view([1]))
  running = { leader, scale, scaleForAccumulation, loss: view, guests: new Set() }
}

/** The others leave in one order on all ranks: their reductions are collectives. */
export function endBackward(leader: Participant): void {
  if (running?.leader !== leader) return
  const { guests, loss } = running
  running = undefined
  loss.dispose()
  try {
    for (const engine of engines) if (guests.has(engine)) engine.leave()
  } catch (error) {
    for (const engine of guests) engine.giveUp(error)
    throw error
  }
}

/** The backward that `leader` leads has failed: the others give up, too. */
export function failBackward(leader: Participant, error: unknown): void {
  if (running?.leader !== leader) return
  const { guests, loss } = running
  running = undefined
  loss.dispose()
  for (const engine of guests) engine.giveUp(error)
}

/** Runs an engine's model, so that a backward that goes through it is known. */
export function bounded<Args extends Tensor[]>(
  engine: Participant,
  args: Args,
  run: (...args: Args) => Tensor,
): Tensor {
  if (engines.size < 2) return run(...args)
  const inner = args.map((arg) => (arg.requiresGrad ? boundary(arg, 'engineInput', () => 1 / ratioOf(engine)) : arg))
  let result: Tensor
  try {
    result = run(...(inner as Args))
  } finally {
    for (const [index, view] of inner.entries()) if (view !== args[index]) view.dispose()
  }
  if (!result.producer || args.includes(result)) return result
  const output = boundary(result, 'engineOutput', () => {
    join(engine)
    return ratioOf(engine)
  })
  if (output.producer) output.producer.onFailure = (error) => engine.giveUp(error)
  result.dispose()
  return output
}

/** The same values; the gradient is multiplied by what `factor` says in backward. */
function boundary(x: Tensor, name: string, factor: () => number): Tensor {
  const y = x.view(x.shape)
  record(name, [y], [x], [], ([dy]) => {
    if (!dy) return []
    const times = factor()
    if (times === 1) return [dy.view(dy.shape)]
    const dx = empty(dy.shape, { dtype: dy.dtype })
    runOp('affine', [dx], [dy], [times, 0])
    return [dx]
  })
  return y
}

function join(engine: Participant): void {
  if (!running) {
    throw new ZeroshardError(
      'AUTOGRAD',
      '[backward] went through the model of an engine without one that leads it; call engine.backward(loss), or run backwardFrom(engine.scale(loss))',
    )
  }
  if (engine === running.leader || running.guests.has(engine)) return
  engine.join(running.loss)
  running.guests.add(engine)
}

/** The scale inside the engine's model, relative to that outside. */
function ratioOf(engine: Participant): number {
  if (!running || engine === running.leader) return 1
  return engine.gradientScale(running.scaleForAccumulation) / running.scale
}
