// Stage 3: which units' full parameters exist, and when. A unit is fetched when one of its parameters is used (or its
// module's forward begins), released when that forward ends, fetched again in backward, and released when the tape
// needs it no more. What was used in the last pass tells what to fetch ahead; where the order changes, units are
// fetched when they are used. All ranks must see the same order of uses, as they gather in it: modules in which they
// take different ways are declared as leaves, whose units are fetched together whichever of them is used.

import { inBackward, isRecording } from '../../autograd/tape.js'
import type { Module } from '../../nn/module.js'
import { COMPUTE, COPY } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import type { Unit } from './unit.js'

export interface FetcherOptions {
  /** Its own: gathers run beside reductions. */
  group: ProcessGroup
  /** Elements to have under way beyond what is in use; 0: none. One unit is always allowed otherwise. */
  prefetch: number
  /** Elements that may exist in full for a prefetch to begin, or for recomputed units to stay until their backward. */
  maxLive: number
  overlap: boolean
}

export class Fetcher {
  readonly #used = new Set<Unit>()
  readonly #ahead = new Set<Unit>()
  readonly #traces = new Map<string, readonly Unit[]>()
  #pass = ''
  #trace: Unit[] = []
  #next = 0

  constructor(
    model: Module,
    units: readonly Unit[],
    readonly options: FetcherOptions,
  ) {
    const sharded = units.filter((unit) => !unit.parameters)
    for (const unit of sharded) {
      const { module, leaf } = unit.layout
      const together = leaf ? sharded.filter(({ layout }) => layout.module === module) : [unit]
      unit.watch(
        () => {
          for (const each of together) this.use(each)
        },
        () => {
          // Frozen ones: those that are trained end with their gradients.
          if (inBackward() && !unit.layout.trainable) this.#release(unit)
        },
      )
    }
    model.visit((module) => {
      const own = sharded.filter((unit) => unit.layout.module === module.path)
      const isRoot = module === model
      if (!own.length && !isRoot) return
      module.hooks = {
        before: () => {
          for (const unit of own) this.use(unit)
        },
        after: () => {
          // Computed again: backward comes next and needs it, unless there is no room for so many.
          const again = inBackward()
          if (again && sizeOf(this.#used) + sizeOf(this.#ahead) <= options.maxLive) return
          for (const unit of own) this.#release(unit)
          if (isRoot && !again && !isRecording()) this.releaseAll()
        },
      }
    })
  }

  /** A pass is what is repeated: a forward with its backward, an evaluation. */
  begin(pass: string): void {
    this.end()
    this.#pass = pass
  }

  /** Releases all, and remembers the order of uses for the next pass of this name. */
  end(): void {
    this.releaseAll()
    if (this.#trace.length) this.#traces.set(this.#pass, this.#trace)
    this.#trace = []
    this.#next = 0
  }

  use(unit: Unit): void {
    if (this.#used.has(unit)) return
    if (!unit.fetched) this.#gather(unit)
    this.#ahead.delete(unit)
    this.#used.add(unit)
    unit.lendFetched()
    this.#trace.push(unit)
    this.#prefetch(unit)
  }

  /** In backward: the unit's gradients are complete, so its parameters are needed no more. */
  done(unit: Unit): void {
    if (inBackward()) this.#release(unit)
  }

  /** Releases these units where nothing of the current pass needs them. */
  releaseUnits(units: readonly Unit[]): void {
    for (const unit of units) this.#release(unit)
  }

  #prefetch(unit: Unit): void {
    const { prefetch, maxLive } = this.options
    const known = this.#traces.get(this.#pass)
    if (!known || prefetch === 0) return
    const at = known.indexOf(unit, this.#next)
    if (at < 0) return
    this.#next = at + 1
    let ahead = sizeOf(this.#ahead)
    let live = ahead + sizeOf(this.#used)
    for (let i = this.#next; i < known.length; i++) {
      const next = known[i] as Unit
      const { size } = next.layout
      if (this.#used.has(next) || this.#ahead.has(next)) continue
      if ((ahead > 0 && ahead + size > prefetch) || live + size > maxLive) return
      this.#gather(next)
      this.#ahead.add(next)
      ahead += size
      live += size
    }
  }

  #gather(unit: Unit): void {
    const { group, overlap } = this.options
    unit.fetch((full, own) => group.allGather(full, own, { tag: unit.layout.index, stream: overlap ? COPY : COMPUTE }))
  }

  #release(unit: Unit): void {
    this.#used.delete(unit)
    this.#ahead.delete(unit)
    unit.release()
  }

  releaseAll(): void {
    for (const unit of [...this.#used, ...this.#ahead]) this.#release(unit)
  }
}

const sizeOf = (units: Iterable<Unit>): number => {
  let sum = 0
  for (const unit of units) sum += unit.layout.size
  return sum
}
