// Collectives on the tape: the four conjugate pairs on which model parallelism rests. The backward of each is the
// other of its pair. Over a group of one each returns its input. x is the same shape on all ranks.
//
//   identity        ↔ all-reduce       replicated values, partial gradients | partial values, replicated gradients
//   all-gather      ↔ reduce-scatter   parts along a dim, used by ranks for different things
//   scatter         ↔ gather           parts along a dim, of what all ranks use for the same thing
//   all-to-all      ↔ all-to-all       parts along one dim for parts along another

import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { normalDim } from '../ops/check.js'
import { countOf, empty, runOp, type Shape, type Tensor } from '../tensor/tensor.js'
import type { ProcessGroup } from './group.js'

/** Records y = forward(x) with the conjugate as its backward. */
function pair(op: string, x: Tensor, y: Tensor, backward: (dy: Tensor) => Tensor): Tensor {
  record(op, [y], [x], [], ([dy]) => [dy && backward(dy)])
  return y
}

/**
 * Identity forward, all-reduce backward: where replicated values enter what each rank does its part of.
 *
 * @example
 * identity(tensor([1, 2]), ProcessGroup.single()) // [1, 2]
 */
export function identity(x: Tensor, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('identity', x, x.check('identity').view(x.shape), (dy) => reducedGradient(dy, group))
}

/**
 * All-reduce forward, identity backward: where the ranks' parts are summed.
 *
 * @example
 * allReduce(tensor([1, 2]), ProcessGroup.single()) // [1, 2]
 */
export function allReduce(x: Tensor, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('allReduce', x, reduced(x.check('allReduce'), group), (dy) => dy)
}

/**
 * All-gather along `dim` forward, reduce-scatter backward.
 *
 * @example
 * allGather(tensor([1, 2]), 0, ProcessGroup.single()) // [1, 2]
 */
export function allGather(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('allGather', x, gathered(x.check('allGather'), dim, group), (dy) => reduceScattered(dy, dim, group))
}

/**
 * Reduce-scatter along `dim` forward, all-gather backward.
 *
 * @example
 * reduceScatter(tensor([1, 2]), 0, ProcessGroup.single()) // [1, 2]
 */
export function reduceScatter(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('reduceScatter', x, reduceScattered(x.check('reduceScatter'), dim, group), (dy) =>
    gathered(dy, dim, group),
  )
}

/**
 * This rank's part of `dim` forward, gather backward.
 *
 * @example
 * scatter(tensor([1, 2]), 0, ProcessGroup.single()) // [1, 2]
 */
export function scatter(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('scatter', x, ownPart(x.check('scatter'), dim, group), (dy) => gathered(dy, dim, group))
}

/**
 * Gather along `dim` forward, this rank's part backward.
 *
 * @example
 * gather(tensor([1, 2]), 0, ProcessGroup.single()) // [1, 2]
 */
export function gather(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('gather', x, gathered(x.check('gather'), dim, group), (dy) => ownPart(dy, dim, group))
}

/**
 * Parts of `scatterDim` go to their ranks, what comes is joined along `gatherDim`; backward the other way.
 *
 * @example
 * allToAll(tensor([1, 2], [1, 2]), 0, 1, ProcessGroup.single()) // [1, 2]
 */
export function allToAll(x: Tensor, scatterDim: number, gatherDim: number, group: ProcessGroup): Tensor {
  if (group.size === 1) return x
  return pair('allToAll', x, exchanged(x.check('allToAll'), scatterDim, gatherDim, group), (dy) =>
    exchanged(dy, gatherDim, scatterDim, group),
  )
}

/** The sum over the ranks, in memory of its own. */
export function reduced(x: Tensor, group: ProcessGroup): Tensor {
  const y = empty(x.shape, { dtype: x.dtype, shared: true })
  group.allReduce(x, { output: y })
  return y
}

/** The sum of a gradient: in place where nobody else sees its memory. */
export function reducedGradient(dy: Tensor, group: ProcessGroup): Tensor {
  return dy.exclusive ? group.allReduce(dy) : reduced(dy, group)
}

/** x as (outer, n, inner): its dim `dim` in the middle. */
function around(op: string, x: Tensor, dim: number): { axis: number; outer: number; n: number; inner: number } {
  const axis = normalDim(op, x, dim)
  return {
    axis,
    outer: countOf(x.shape.slice(0, axis)),
    n: x.shape[axis] as number,
    inner: countOf(x.shape.slice(axis + 1)),
  }
}

const resized = (shape: Shape, axis: number, size: number): number[] =>
  shape.map((old, index) => (index === axis ? size : old))

function partOf(op: string, x: Tensor, dim: number, n: number, ranks: number): number {
  if (n % ranks !== 0) {
    const next = Math.ceil(n / ranks) * ranks
    throw new ZeroshardError(
      'SHAPE',
      `[${op}] dim ${dim} of ${x.describe()} has size ${n}, not divisible by group size ${ranks}; pad it to ${next}`,
    )
  }
  return n / ranks
}

/** All ranks' x joined along `dim`. */
export function gathered(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  const { axis, outer, n, inner } = around('allGather', x, dim)
  const { size } = group
  const y = empty(resized(x.shape, axis, size * n), { dtype: x.dtype })
  if (outer === 1) return group.allGather(y, x)
  const blocks = empty([size, x.count], { dtype: x.dtype })
  group.allGather(blocks, x)
  const width = n * inner
  for (let rank = 0; rank < size; rank++)
    runOp('copy_2d', [y], [blocks], [outer, width, rank * width, size * width, rank * x.count, width])
  blocks.dispose()
  return y
}

/** This rank's part along `dim` of the sum over the ranks. */
export function reduceScattered(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  const { axis, outer, n } = around('reduceScatter', x, dim)
  const part = partOf('reduceScatter', x, dim, n, group.size)
  const y = empty(resized(x.shape, axis, part), { dtype: x.dtype, shared: true })
  if (outer === 1) return group.reduceScatter(y, x)
  const blocks = blocksOf('reduceScatter', x, dim, group.size)
  group.reduceScatter(y, blocks)
  blocks.dispose()
  return y
}

/** The parts of `dim`, each dense, one after another. */
function blocksOf(op: string, x: Tensor, dim: number, ranks: number): Tensor {
  const { outer, n, inner } = around(op, x, dim)
  const width = partOf(op, x, dim, n, ranks) * inner
  const blocks = empty([ranks, x.count / ranks], { dtype: x.dtype, shared: true })
  for (let rank = 0; rank < ranks; rank++)
    runOp('copy_2d', [blocks], [x], [outer, width, rank * outer * width, width, rank * width, ranks * width])
  return blocks
}

/** Part `rank` of `dim`. */
export function ownPart(x: Tensor, dim: number, group: ProcessGroup): Tensor {
  const { axis, outer, n, inner } = around('scatter', x, dim)
  const part = partOf('scatter', x, dim, n, group.size)
  const y = empty(resized(x.shape, axis, part), { dtype: x.dtype, shared: true })
  const width = part * inner
  runOp('copy_2d', [y], [x], [outer, width, 0, width, group.rank * width, n * inner])
  return y
}

function exchanged(x: Tensor, scatterDim: number, gatherDim: number, group: ProcessGroup): Tensor {
  const from = around('allToAll', x, scatterDim)
  const to = around('allToAll', x, gatherDim)
  if (from.axis === to.axis)
    throw new ZeroshardError('ARGUMENT', `[allToAll] scatters and gathers dim ${from.axis}; the two must differ`)
  const { size } = group
  const parts = blocksOf('allToAll', x, scatterDim, size)
  const received = empty(parts.shape, { dtype: x.dtype })
  group.allToAll(received, parts)
  parts.dispose()
  const block = resized(x.shape, from.axis, from.n / size)
  const y = empty(resized(block, to.axis, to.n * size), { dtype: x.dtype })
  const outer = countOf(block.slice(0, to.axis))
  const width = to.n * countOf(block.slice(to.axis + 1))
  for (let rank = 0; rank < size; rank++)
    runOp('copy_2d', [y], [received], [outer, width, rank * width, size * width, rank * outer * width, width])
  received.dispose()
  return y
}
