// parallelize: cuts a plain model over the tensor ranks of a mesh by a plan, in place. Its modules are exchanged for
// parallel ones with the same parameters and names; checkpoints, initial values and ZeRO see whole parameters.

import { ZeroshardError } from '../binding/errors.js'
import { Conv1D, Dropout, Embedding, Linear } from '../nn/layers.js'
import { LanguageModelHead } from '../nn/models/head.js'
import type { Module } from '../nn/module.js'
import type { Mesh } from './mesh.js'
import { type Placed, type Plan, type PlanEntry, placePlan, readyPlan } from './plan.js'
import { SequenceDropout, SequenceEmbedding } from './sequence/layers.js'
import { deal } from './tensor/cut.js'
import { deducePlan } from './tensor/deduce.js'
import { VocabParallelEmbedding } from './tensor/embedding.js'
import { VocabParallelHead } from './tensor/head.js'
import { ColumnParallelLinear, RowParallelLinear } from './tensor/linear.js'
import { Region } from './tensor/region.js'

/** What a user's model may have of its own accord: they know their part of a parameter. */
const parallelLayers = [ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding, VocabParallelHead]

/** Options of `parallelize`. */
export interface ParallelizeOptions {
  /** Norms, dropout and residuals on a part of the sequence each. */
  sequence?: boolean
  /** Pieces of a product whose communication runs beside it; 1: none. */
  chunks?: number
}

/** What parallelize did. */
export interface Parallelized {
  plan: Plan
  /** One line each, for the user; none where a ready plan was followed. */
  notes: string[]
}

/**
 * Cuts `model`, which must have no memory yet, over the tensor ranks of `mesh`. Without a plan: the ready one of our
 * models, else one that is deduced. Collective over those ranks.
 *
 * @throws CONFIG where the plan does not fit the model, or sizes do not divide
 * @example
 * const model = new nn.Sequential(new nn.Linear(8, 16), new nn.Linear(16, 8))
 * const plan: Plan = [
 *   { match: 'layers.0', as: 'column' },
 *   { match: 'layers.1', as: 'row' },
 * ]
 * parallelize(model, Mesh.single(), plan).notes // []
 */
export function parallelize(
  model: Module,
  mesh: Mesh,
  plan?: Plan,
  { sequence = false, chunks = 1 }: ParallelizeOptions = {},
): Parallelized {
  const group = mesh.group('tp')
  if (group.size === 1) return { plan: plan ?? [], notes: [] }
  model.namedParameters()
  const chosen = plan ?? readyPlan(model)
  const deduced = chosen ? undefined : deducePlan(model, group.size)
  const used = chosen ?? deduced?.plan ?? []
  const placed = placePlan(model, used)
  if (sequence) checkSequence(placed)
  const region = new Region(group, { sequence: sequence ? () => model.training : undefined, chunks })
  const parents = parentsOf(model)
  const swaps = new Map(placed.flatMap((place) => swapOf(place, parents.get(place.module) ?? model, region)))
  for (const { module, entry, path } of placed) if (entry.as === 'heads') divideHeads(module, path, region)
  if (sequence) addSequenceLayers(model, swaps, region)
  exchange(model, swaps)
  checkShared(model, new Set(swaps.values()))
  for (const parameter of model.parameters()) {
    if (parameter.slice || parameter.replicas) continue
    parameter.replicas = group
    parameter.partialGradient = sequence
  }
  return { plan: used, notes: deduced?.notes ?? [] }
}

/** The parallel module for a planned one; none where it stays. */
function swapOf({ path, module, entry }: Placed, parent: Module, region: Region): [Module, Module][] {
  const wrong = (needs: string): never => {
    throw new ZeroshardError('CONFIG', `plan: '${path}' is a ${module.constructor.name}; '${entry.as}' takes ${needs}`)
  }
  const isLinear = module instanceof Linear || module instanceof Conv1D
  switch (entry.as) {
    case 'column':
    case 'row': {
      if (!isLinear) return wrong('Linear or Conv1D')
      const units = headsOf(entry, parent, path)
      const { parts = 1 } = entry
      if (entry.as === 'row') return [[module, new RowParallelLinear(module, region, units ? { units } : {})]]
      const mayCopy = entry.heads === 'numKeyValueHeads'
      return [[module, new ColumnParallelLinear(module, region, { parts, mayCopy, ...(units && { units }) })]]
    }
    case 'vocabulary':
      if (module instanceof Embedding) return [[module, new VocabParallelEmbedding(module, region)]]
      if (module instanceof LanguageModelHead) return [[module, new VocabParallelHead(module, region)]]
      return wrong('an Embedding or a LanguageModelHead')
    case 'heads':
    case 'replicate':
      return []
    default:
      return entry.as satisfies never
  }
}

type Heads = { numHeads?: number; numKeyValueHeads?: number; firstHead?: number; totalHeads?: number }

function headsOf({ heads }: PlanEntry, parent: Module, path: string): number | undefined {
  if (!heads) return undefined
  const units = (parent as Heads)[heads]
  if (units === undefined) {
    throw new ZeroshardError('CONFIG', `plan: the ${parent.constructor.name} around '${path}' has no field ${heads}`)
  }
  return units
}

/** Leaves an attention module this rank's heads. */
function divideHeads(module: Module, path: string, { group }: Region): void {
  const attention = module as Module & Heads
  if (attention.numHeads === undefined)
    throw new ZeroshardError('CONFIG', `plan: '${path}' is a ${module.constructor.name} without a field numHeads`)
  const query = deal(`${path}: numHeads`, attention.numHeads, group.size, group.rank)
  // Where attention draws (dropout), it draws for its place among all heads.
  if (attention.totalHeads !== undefined) {
    attention.totalHeads = attention.numHeads
    attention.firstHead = query.first
  }
  attention.numHeads = query.count
  if (attention.numKeyValueHeads === undefined) return
  const keys = deal(`${path}: numKeyValueHeads`, attention.numKeyValueHeads, group.size, group.rank, true)
  attention.numKeyValueHeads = keys.count
}

/** A module that is not cut would take a rank's part of a shared (tied) parameter for the whole. */
function checkShared(model: Module, cut: ReadonlySet<Module>): void {
  const owners = new Map([...cut].flatMap((module) => module.ownParameters().map((parameter) => [parameter, module])))
  model.visit((module) => {
    if (cut.has(module) || parallelLayers.some((layer) => module instanceof layer)) return
    for (const parameter of module.ownParameters()) {
      const owner = owners.get(parameter)
      if (!owner || !parameter.slice) continue
      throw new ZeroshardError(
        'CONFIG',
        `plan: '${module.path}' shares '${parameter.name}' with '${owner.path}', which is cut; plan both alike, or neither`,
      )
    }
  })
}

/** Sequence parts begin at the embedding and end at the head: a plan must name both. */
function checkSequence(placed: readonly Placed[]): void {
  const has = (type: typeof Embedding | typeof LanguageModelHead): boolean =>
    placed.some(({ module, entry }) => entry.as === 'vocabulary' && module instanceof type)
  if (has(Embedding) && has(LanguageModelHead)) return
  throw new ZeroshardError(
    'CONFIG',
    'tensor_parallel.sequence_parallel needs a plan that cuts an embedding and a LanguageModelHead by vocabulary; leave it out for this model',
  )
}

/** Dropout and whole embeddings that see a part of the sequence. */
function addSequenceLayers(model: Module, swaps: Map<Module, Module>, region: Region): void {
  model.visit((module) => {
    if (swaps.has(module)) return
    if (module instanceof Dropout) swaps.set(module, new SequenceDropout(module, region))
    if (module instanceof Embedding) swaps.set(module, new SequenceEmbedding(module, region))
  })
}

function parentsOf(model: Module): Map<Module, Module> {
  const parents = new Map<Module, Module>()
  model.visit((module) => {
    for (const [, child] of module.children()) parents.set(child, module)
  })
  return parents
}

/** Puts each module's replacement where it stands, in fields and in arrays. */
function exchange(model: Module, swaps: ReadonlyMap<Module, Module>): void {
  model.visit((module) => {
    for (const [field, value] of Object.entries(module)) {
      const swap = swaps.get(value as Module)
      if (swap) {
        swap.training = (value as Module).training
        Object.assign(module, { [field]: swap })
      } else if (Array.isArray(value)) {
        for (const [index, item] of value.entries()) value[index] = swaps.get(item) ?? item
      }
    }
  })
  model.visit(() => {})
}
