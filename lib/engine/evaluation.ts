// The mean loss of an evaluation, over micro-batches and ranks. Where the layout has ranks call each other in forward they
// need as many batches each, which is agreed on before the first one: nobody waits for a call that never comes.

import { ZeroshardError } from '../binding/errors.js'
import { Agreement } from '../checkpoint/agreement.js'
import { unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import type { EngineParts } from './parts.js'

/** Sums of this rank: of losses, and of how many they are. */
export class Evaluation {
  readonly #sums = unscoped(() => empty([2], { category: 'buffers', zero: true, shared: true }))

  constructor(readonly parts: EngineParts) {}

  add(loss: Tensor): void {
    this.#add(0, (sum) => {
      const one = loss.view([1])
      runOp('binary', [sum], [sum, one], [0])
      one.dispose()
    })
  }

  #add(at: number, work: (sum: Tensor) => void): void {
    unscoped(() => {
      const sum = this.#sums.view([1], at)
      work(sum)
      sum.dispose()
    })
  }

  /** Collective: the mean of all ranks' losses, of which this one has added those of `count` batches. */
  async mean(count: number): Promise<number> {
    const { mesh } = this.parts
    this.#add(1, (sum) => runOp('fill', [sum], [], [count]))
    mesh.group('dp', 'cp').allReduce(this.#sums)
    // The last stage alone has losses, each stage has the count.
    this.#add(0, (sum) => mesh.group('pp').allReduce(sum))
    const [sum, all] = (await this.#sums.data()) as unknown as [number, number]
    return sum / Math.max(all, 1)
  }

  dispose(): void {
    this.#sums.dispose()
  }
}

/**
 * Collective. The batches, of which there are as many on all ranks that must make the same calls; from an iterable they
 * are all made first, where there are such ranks.
 *
 * @throws ARGUMENT on all ranks where there are not; then the batches are disposed
 */
export async function agreedBatches<Args extends Tensor[]>(
  batches: Iterable<Args>,
  { mesh, meeting, zero }: EngineParts,
): Promise<Iterable<Args>> {
  const { tp, cp, pp, ep } = mesh.sizes
  // Stage 3 gathers over data-parallel ranks, too; otherwise those of one replica call each other.
  const everywhere = zero.fetcher !== undefined && mesh.sizes.dp > 1
  if (mesh.world.size === 1 || !(everywhere || tp * cp * pp * ep > 1)) return batches
  const made: Args[] = []
  try {
    const all = await new Agreement(meeting, 'evaluation').all('batches', async () => {
      for (const inputs of batches) made.push(inputs)
      return { count: made.length, replica: everywhere ? 0 : mesh.place.dp }
    })
    all.forEach(({ count, replica }, rank) => {
      const first = all.findIndex((other) => other.replica === replica)
      const expected = all[first]?.count
      if (count === expected) return
      throw new ZeroshardError(
        'ARGUMENT',
        `[evalBatch] rank ${first} has ${expected} batches and rank ${rank} has ${count}, but they take part in each other's; give them as many`,
      )
    })
    return made
  } catch (error) {
    for (const tensor of made.flat()) tensor.dispose()
    throw error
  }
}
