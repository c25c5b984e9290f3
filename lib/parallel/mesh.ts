// The mesh: which rank stands where on the axes pp, dp, cp, ep, tp, and the process groups along them.
// The only rank arithmetic. tp varies fastest, so that it stays inside a host; pp slowest, as it talks least.

import { ZeroshardError } from '../binding/errors.js'
import { ProcessGroup } from './group.js'

export const axes = ['pp', 'dp', 'cp', 'ep', 'tp'] as const
export type Axis = (typeof axes)[number]
export type MeshSizes = Record<Axis, number>
export type Coordinates = Record<Axis, number>

/**
 * Ranks of the mesh as pure arithmetic.
 *
 * @example
 * new MeshShape({ dp: 2, tp: 4 }).worldSize // 8
 */
export class MeshShape {
  readonly sizes: MeshSizes
  readonly worldSize: number

  /** Axes left out have size 1. @throws CONFIG where a size is no positive integer. */
  constructor(sizes: Partial<MeshSizes>) {
    this.sizes = { pp: 1, dp: 1, cp: 1, ep: 1, tp: 1, ...sizes }
    for (const axis of axes) {
      const size = this.sizes[axis]
      if (!(Number.isInteger(size) && size >= 1))
        throw new ZeroshardError('CONFIG', `[mesh] axis ${axis} has size ${size}; it must be a positive integer`)
    }
    this.worldSize = axes.reduce((product, axis) => product * this.sizes[axis], 1)
  }

  rankOf(place: Coordinates): number {
    return axes.reduce((rank, axis) => rank * this.sizes[axis] + place[axis], 0)
  }

  placeOf(rank: number): Coordinates {
    const place = { pp: 0, dp: 0, cp: 0, ep: 0, tp: 0 }
    let rest = rank
    for (const axis of [...axes].reverse()) {
      place[axis] = rest % this.sizes[axis]
      rest = Math.floor(rest / this.sizes[axis])
    }
    return place
  }

  /** The ranks that differ from `rank` on these axes alone, ascending. */
  ranksAlong(rank: number, along: readonly Axis[]): number[] {
    let ranks = [this.placeOf(rank)]
    for (const axis of axes) {
      if (!along.includes(axis)) continue
      ranks = ranks.flatMap((place) =>
        Array.from({ length: this.sizes[axis] }, (_, index) => ({ ...place, [axis]: index })),
      )
    }
    return ranks.map((place) => this.rankOf(place)).sort((a, b) => a - b)
  }

  /** A row for each pipeline stage and data-parallel replica, the ranks of its tensor group side by side. */
  toString(): string {
    const title = axes.filter((axis) => this.sizes[axis] > 1).map((axis) => `${axis} ${this.sizes[axis]}`)
    const lines = [title.length ? title.join(' x ') : '1 rank']
    const width = String(this.worldSize - 1).length
    for (let rank = 0; rank < this.worldSize; rank += this.sizes.tp) {
      const place = this.placeOf(rank)
      const name = axes.filter((axis) => axis !== 'tp' && this.sizes[axis] > 1).map((axis) => `${axis} ${place[axis]}`)
      const members = this.ranksAlong(rank, ['tp']).map((member) => String(member).padStart(width))
      lines.push(`  ${name.length ? `${name.join('  ')}: ` : ''}[ ${members.join(' ')} ]`)
    }
    return lines.join('\n')
  }
}

/**
 * This process's place on a mesh and its groups; groups over one rank exist too and are no-ops.
 *
 * @example
 * Mesh.single().group('dp').size // 1
 */
export class Mesh {
  readonly sizes: MeshSizes
  readonly place: Coordinates
  readonly #groups = new Map<string, ProcessGroup>()

  private constructor(
    readonly shape: MeshShape,
    readonly world: ProcessGroup,
  ) {
    this.sizes = shape.sizes
    this.place = shape.placeOf(world.rank)
  }

  /**
   * Collective over the world: makes the groups that parallelism uses, in one order on all ranks.
   *
   * @throws CONFIG where the sizes do not multiply to the world's
   */
  static create(world: ProcessGroup, sizes: Partial<MeshSizes>): Mesh {
    const shape = new MeshShape(sizes)
    if (shape.worldSize !== world.size) {
      const text = axes.map((axis) => `${axis} ${shape.sizes[axis]}`).join(' x ')
      throw new ZeroshardError(
        'CONFIG',
        `[mesh] ${text} is ${shape.worldSize} ranks, the world has ${world.size}; change an axis or --nproc`,
      )
    }
    const mesh = new Mesh(shape, world)
    for (const along of [
      ['tp'],
      ['cp'],
      ['dp'],
      ['pp'],
      ['dp', 'cp'],
      ['cp', 'tp'],
      ['pp', 'tp'],
      ['dp', 'cp', 'tp'],
    ] as Axis[][]) {
      mesh.#groups.set(keyOf(along), world.subgroup(shape.ranksAlong(world.rank, along)))
    }
    mesh.#groups.set(keyOf([...axes]), world)
    return mesh
  }

  static single(): Mesh {
    return Mesh.create(ProcessGroup.single(), {})
  }

  /** The group of the ranks that differ from this one on these axes alone. */
  group(...along: Axis[]): ProcessGroup {
    const group = this.#groups.get(keyOf(along))
    if (!group) throw new ZeroshardError('INTERNAL', `[mesh] there is no group along ${along.join(' x ')}`)
    return group
  }

  toString(): string {
    return this.shape.toString()
  }
}

const keyOf = (along: readonly Axis[]): string => axes.filter((axis) => along.includes(axis)).join()

/** Sizes by the configuration's words. */
export const meshWords = ({ pp, dp, cp, ep, tp }: MeshSizes): Record<string, number> => ({
  pipeline: pp,
  data: dp,
  context: cp,
  expert: ep,
  tensor: tp,
})
