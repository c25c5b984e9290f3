// DeepSpeed's flops_profiler: parameters, multiply-adds and device time of each module's forward, counted from the
// tasks that really ran. While it is attached it notes which module's forward JavaScript is in; a task belongs to the
// innermost module in whose forward it was queued. What a module computes outside of its children's forward
// (a classifier that uses lm_head's weight, say) is its own.

import { table, withPrefix } from './table.js'
import { lastAtMost, now, type TraceRecords } from './trace.js'

/** What is needed of lib/nn's Module. */
export interface ProfiledModule {
  children(): [string, ProfiledModule][]
  namedParameters(): Map<string, { readonly count: number }>
  forward(...args: never[]): unknown
}

/** What one module and its children did in a step. */
export interface ModuleProfile {
  /** Field of its parent; the root's is its class. */
  name: string
  type: string
  depth: number
  parameters: number
  /** Multiply-adds of matrix products, of one forward with all children; and what is not any child's. */
  macs: number
  ownMacs: number
  /** Milliseconds of the compute stream, of one forward with all children; likewise. */
  latency: number
  ownLatency: number
  children: ModuleProfile[]
}

/** Measures modules of a model during one step. */
export class ModuleProfiler {
  readonly #model: ProfiledModule
  readonly #originals = new Map<ProfiledModule, ProfiledModule['forward']>()
  /** From `at[i]` to the next one, JavaScript was in the forward of `inside[i]`. */
  #at: number[] = []
  #inside: (ProfiledModule | undefined)[] = []
  #stack: ProfiledModule[] = []
  #forwards = 0

  constructor(model: ProfiledModule) {
    this.#model = model
  }

  attach(): void {
    this.#wrap(this.#model)
  }

  /** Modules are as they were before attach(). */
  detach(): void {
    for (const [module, forward] of this.#originals) module.forward = forward
    this.#originals.clear()
  }

  #wrap(module: ProfiledModule): void {
    if (this.#originals.has(module)) return
    const { forward } = module
    this.#originals.set(module, forward)
    module.forward = (...args: never[]) => {
      // In backward a block may run forward again, by itself: that is not this forward.
      if (module !== this.#model && this.#stack.length === 0) return forward.apply(module, args)
      if (module === this.#model) this.#forwards++
      this.#stack.push(module)
      this.#mark()
      try {
        return forward.apply(module, args)
      } finally {
        this.#stack.pop()
        this.#mark()
      }
    }
    for (const [, child] of module.children()) this.#wrap(child)
  }

  #mark(): void {
    this.#at.push(now())
    this.#inside.push(this.#stack.at(-1))
  }

  /** The tree, from the records of the time in which it was attached. */
  profile(records: TraceRecords): ModuleProfile {
    const own = new Map<ProfiledModule, { flops: number; time: number }>()
    for (let i = 0; i < records.start.length; i++) {
      const module = this.#inside[lastAtMost(this.#at, records.queued[i] as number)]
      if (!module) continue
      const sums = own.get(module) ?? { flops: 0, time: 0 }
      sums.flops += records.flops[i] as number
      if (records.stream[i] === 0) sums.time += (records.end[i] as number) - (records.start[i] as number)
      own.set(module, sums)
    }
    const counts = [...this.#model.namedParameters()].map(([name, { count }]) => [name, count] as const)
    const seen = new Set<ProfiledModule>()
    const build = (module: ProfiledModule, name: string, path: string, depth: number): ModuleProfile => {
      seen.add(module)
      const { flops, time } = own.get(module) ?? { flops: 0, time: 0 }
      const children = module
        .children()
        .filter(([, child]) => !seen.has(child))
        .map(([field, child]) => build(child, field, `${path}${field}.`, depth + 1))
      const [ownMacs, ownLatency] = [flops / 2 / (this.#forwards || 1), time / 1e6 / (this.#forwards || 1)]
      return {
        name,
        type: module.constructor.name,
        depth,
        parameters: counts.reduce((sum, [parameter, count]) => sum + (parameter.startsWith(path) ? count : 0), 0),
        ownMacs,
        ownLatency,
        macs: children.reduce((sum, child) => sum + child.macs, ownMacs),
        latency: children.reduce((sum, child) => sum + child.latency, ownLatency),
        children,
      }
    }
    return build(this.#model, this.#model.constructor.name, '', 0)
  }
}

/** Sums of the tasks that were queued in a phase: FLOPs, and ms of the compute stream. */
export function workOf(
  records: TraceRecords,
  phase: string,
  phaseOf: (index: number) => string | undefined,
): { flops: number; time: number } {
  const sums = { flops: 0, time: 0 }
  for (let i = 0; i < records.start.length; i++) {
    if (phaseOf(i) !== phase) continue
    sums.flops += records.flops[i] as number
    if (records.stream[i] === 0) sums.time += ((records.end[i] as number) - (records.start[i] as number)) / 1e6
  }
  return sums
}

/** DeepSpeed's keys. */
export interface ProfileConfig {
  enabled?: boolean
  /** The step that is profiled, counted from 1. */
  profile_step?: number
  /** Depth of the aggregated table and of the tree; -1: all. */
  module_depth?: number
  /** Modules to name at each depth. */
  top_modules?: number
  /** Also the tree of all modules. */
  detailed?: boolean
  output_file?: string | null
  /** Part of forward that is computed again in backward. */
  recompute_fwd_factor?: number
}

/** Everything about the profiled step beside the tree. Times in ms, of this rank. */
export interface ProfileFacts {
  step: number
  ranks: number
  dataParallel: number
  microBatchSize: number
  accumulationSteps: number
  backward: { flops: number; time: number }
  update: number
  seconds: number
  samples: number
  tokens: number
  mfu?: number
  peak?: number
}

/** The profile as a table for people. */
export function profileReport(root: ModuleProfile, facts: ProfileFacts, config: ProfileConfig): string {
  const parts = [
    `FLOPs profile of step ${facts.step}, this rank`,
    summary(root, facts, config),
    aggregated(root, config),
  ]
  if (config.detailed ?? true) parts.push(tree(root, config))
  return `${parts.join('\n\n')}\n`
}

function summary(root: ModuleProfile, facts: ProfileFacts, { recompute_fwd_factor = 0 }: ProfileConfig): string {
  const { accumulationSteps: n, backward } = facts
  const forward = 2 * root.macs
  const rate = (flops: number, ms: number): string => (ms > 0 ? `${withPrefix((flops / ms) * 1e3)}FLOP/s` : '-')
  const backwardMs = backward.time / n
  const model = forward * (3 + recompute_fwd_factor)
  const rows: [string, string][] = [
    ['ranks; data parallel', `${facts.ranks}; ${facts.dataParallel}`],
    ['micro-batch; accumulation steps', `${facts.microBatchSize}; ${n}`],
    ['parameters', withPrefix(root.parameters)],
    ['forward MACs of a micro-batch', `${withPrefix(root.macs)}MACs`],
    ['forward FLOPs', `${withPrefix(forward)}FLOPs`],
    ['forward latency (device)', `${root.latency.toFixed(2)} ms`],
    ['forward rate', rate(forward, root.latency)],
    ['backward FLOPs, as executed', `${withPrefix(backward.flops / n)}FLOPs`],
    ['backward latency (device)', `${backwardMs.toFixed(2)} ms`],
    ['backward rate', rate(backward.flops / n, backwardMs)],
    [`forward + backward FLOPs (${3 + recompute_fwd_factor} x forward)`, `${withPrefix(model)}FLOPs`],
    ['step latency', `${facts.update.toFixed(2)} ms`],
    ['iteration latency', `${(facts.seconds * 1e3).toFixed(2)} ms`],
    ['rate of the iteration', rate(model * n, facts.seconds * 1e3)],
    [
      'samples/s; tokens/s',
      `${(facts.samples / facts.seconds).toFixed(2)}; ${(facts.tokens / facts.seconds).toFixed(0)}`,
    ],
  ]
  if (facts.peak !== undefined) rows.push(['peak of this rank', `${withPrefix(facts.peak)}FLOP/s`])
  if (facts.mfu !== undefined) rows.push(['MFU', `${(100 * facts.mfu).toFixed(1)} %`])
  return table(['summary', ''], rows)
}

const measures = {
  parameters: (module: ModuleProfile) => `${withPrefix(module.parameters)}`,
  macs: (module: ModuleProfile) => `${withPrefix(module.macs)}MACs`,
  latency: (module: ModuleProfile) => `${module.latency.toFixed(2)} ms`,
} as const

function flat(root: ModuleProfile): ModuleProfile[] {
  return [root, ...root.children.flatMap(flat)]
}

/** At each depth, the classes of modules that have the most of each measure. */
function aggregated(root: ModuleProfile, { module_depth = -1, top_modules = 1 }: ProfileConfig): string {
  const modules = flat(root)
  const deepest = Math.max(...modules.map((module) => module.depth))
  const last = module_depth < 0 ? deepest : Math.min(module_depth, deepest)
  const rows = Array.from({ length: last + 1 }, (_, depth) => {
    const sums = new Map<string, ModuleProfile>()
    for (const module of modules.filter((one) => one.depth === depth)) {
      const sum = sums.get(module.type) ?? { ...module, parameters: 0, macs: 0, latency: 0 }
      for (const measure of ['parameters', 'macs', 'latency'] as const) sum[measure] += module[measure]
      sums.set(module.type, sum)
    }
    const cells = (['parameters', 'macs', 'latency'] as const).map((measure) =>
      [...sums.values()]
        .sort((a, b) => b[measure] - a[measure])
        .slice(0, Math.max(1, top_modules))
        .map((sum) => `${sum.type} ${measures[measure](sum)}`)
        .join(', '),
    )
    return [String(depth), ...cells]
  })
  return table(['depth', 'most parameters', 'most MACs', 'longest forward'], rows)
}

function tree(root: ModuleProfile, { module_depth = -1 }: ProfileConfig): string {
  const percent = (part: number, whole: number): string => (whole > 0 ? `${((100 * part) / whole).toFixed(1)}%` : '-')
  const rows: string[][] = []
  const visit = (module: ModuleProfile): void => {
    const row = (label: string, parameters: number, macs: number, latency: number): string[] => [
      `${'  '.repeat(module.depth)}${label}`,
      withPrefix(parameters),
      percent(parameters, root.parameters),
      withPrefix(macs),
      percent(macs, root.macs),
      latency.toFixed(2),
      percent(latency, root.latency),
      latency > 0 ? withPrefix((2 * macs * 1e3) / latency) : '-',
    ]
    const label = module.depth === 0 ? module.type : `${module.name}: ${module.type}`
    rows.push(row(label, module.parameters, module.macs, module.latency))
    if (module_depth >= 0 && module.depth >= module_depth) return
    module.children.forEach(visit)
    const own = module.children.reduce((rest, child) => rest - child.parameters, module.parameters)
    if (module.children.length > 0 && (module.ownMacs > 0 || module.ownLatency > 0))
      rows.push(row('  (its own)', own, module.ownMacs, module.ownLatency))
  }
  visit(root)
  return table(['module', 'params', '', 'MACs', '', 'forward ms', '', 'FLOP/s'], rows)
}
