// The tape: each differentiable operation records a node; backward walks the nodes in reverse order.
// It knows no particular operation. Saved tensors are held here and released as backward consumes them.

import { ZeroshardError } from '../binding/errors.js'
import { tidy, unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { type BackwardContext, type BackwardRule, type Edge, TapeNode } from './node.js'

export type { BackwardContext, BackwardRule } from './node.js'

let enabled = true
/** While a part runs that will be recomputed: which leaves it uses. */
let leafCollector: Map<Tensor, number> | undefined
/** The innermost backward that runs: while a part is recomputed, that part's. */
let currentPass: BackwardPass | undefined

/**
 * Runs `fn` without recording.
 *
 * @example
 * const x = tensor([3])
 * x.requiresGrad = true
 * noGrad(() => ops.square(x)).requiresGrad // false
 */
export function noGrad<T>(fn: () => T): T {
  const before = enabled
  enabled = false
  try {
    return fn()
  } finally {
    enabled = before
  }
}

/** Runs `fn` with recording (inside a noGrad). */
export function withGrad<T>(fn: () => T): T {
  const before = enabled
  enabled = true
  try {
    return fn()
  } finally {
    enabled = before
  }
}

export const isRecording = (): boolean => enabled

/** True inside backward, where a part that is recomputed runs forward once more. */
export const inBackward = (): boolean => currentPass !== undefined

/** True where an operation on these inputs will be recorded: it should save what its backward needs. */
export function willRecord(inputs: readonly (Tensor | undefined)[]): boolean {
  return enabled && inputs.some((input) => input?.requiresGrad)
}

/** Runs `fn` without recording and tells which leaves it used, how often. */
export function collectLeaves<T>(fn: () => T): { result: T; leaves: Map<Tensor, number> } {
  const before = leafCollector
  const leaves = new Map<Tensor, number>()
  leafCollector = leaves
  try {
    return { result: noGrad(fn), leaves }
  } finally {
    leafCollector = before
  }
}

/**
 * Records an operation: `outputs` depend on `inputs`; `saved` is held until backward. Inputs that may be absent
 * are passed as undefined and keep their index.
 */
export function record(
  op: string,
  outputs: readonly Tensor[],
  inputs: readonly (Tensor | undefined)[],
  saved: readonly (Tensor | undefined)[],
  rule: BackwardRule,
  leafUses?: ReadonlyMap<Tensor, number>,
): void {
  for (const input of inputs) {
    if (leafCollector && input?.requiresGrad && !input.producer) {
      leafCollector.set(input, (leafCollector.get(input) ?? 0) + 1)
    }
  }
  if (!willRecord(inputs) && !(enabled && leafUses?.size)) return
  const node = new TapeNode(
    op,
    inputs,
    outputs.map(({ shape, dtype }) => ({ shape, dtype })),
    saved.filter((tensor) => tensor !== undefined),
    rule,
    leafUses,
  )
  outputs.forEach((output, index) => {
    output.requiresGrad = true
    output.producer = node
    output.outputIndex = index
  })
}

/** What a backward left for later: the gradients of leaves that only their sinks wait for. */
export class PostponedWork {
  readonly #entries: { uses: readonly Tensor[]; work: () => void; done: () => void }[] = []

  add(uses: readonly Tensor[], work: () => void, done: () => void): void {
    for (const tensor of uses) tensor.hold()
    this.#entries.push({ uses, work, done })
  }

  /** Does it, in the order in which it was left. */
  run(): void {
    for (const { uses, work, done } of this.#entries.splice(0)) {
      tidy(() => noGrad(work))
      for (const tensor of uses) tensor.unhold()
      done()
    }
  }

  /** Frees what it holds, undone. */
  drop(): void {
    for (const { uses } of this.#entries.splice(0)) for (const tensor of uses) tensor.unhold()
  }
}

class BackwardPass {
  readonly gradients = new Map<TapeNode, (Tensor | undefined)[]>()
  readonly uses: Map<Tensor, number>
  readonly postponed: PostponedWork | undefined

  constructor(
    outer: BackwardPass | undefined,
    readonly nodes: readonly TapeNode[],
    postponed: PostponedWork | undefined,
  ) {
    this.uses = outer?.uses ?? new Map()
    this.postponed = outer ? outer.postponed : postponed
    if (outer) return
    for (const node of nodes) {
      for (const edge of node.edges) if (edge && !('node' in edge)) this.#use(edge, 1)
      if (node.leafUses) for (const [leaf, count] of node.leafUses) this.#use(leaf, count)
    }
  }

  #use(leaf: Tensor, count: number): void {
    this.uses.set(leaf, (this.uses.get(leaf) ?? 0) + count)
  }

  /** Adds one gradient to what is known of an output. Takes over the caller's hold on `gradient`. */
  add(edge: Edge, gradient: Tensor): void {
    let slots = this.gradients.get(edge.node)
    if (!slots) this.gradients.set(edge.node, (slots = new Array(edge.node.outputs.length).fill(undefined)))
    const known = slots[edge.output]
    slots[edge.output] = known ? addGradients(known, gradient) : gradient
  }

  /** What is known of a node's outputs; the holds go to the caller. */
  take(node: TapeNode): (Tensor | undefined)[] {
    const slots = this.gradients.get(node) ?? []
    this.gradients.delete(node)
    return slots
  }

  /** Gives back what a pass that ended early has left. */
  drop(): void {
    for (const slots of this.gradients.values()) for (const gradient of slots) gradient?.drop()
    this.gradients.clear()
  }

  leafDone(leaf: Tensor, count = 1): void {
    const left = (this.uses.get(leaf) ?? count) - count
    this.uses.set(leaf, left)
    if (left === 0) leaf.onGradient?.()
  }
}

/** Consumes both holds, answers one tensor held once. In place only where nothing else sees the memory. */
function addGradients(known: Tensor, gradient: Tensor): Tensor {
  const target = known.exclusive ? known : empty(known.shape, { dtype: known.dtype }).hold()
  runOp('binary', [target], [known, gradient], [0])
  if (target !== known) known.drop()
  gradient.drop()
  return target
}

/** The leaf's gradient, f32 and zero-filled at first use where nobody gave it another. */
export function gradientOf(leaf: Tensor): Tensor {
  leaf.grad ??= unscoped(() => empty(leaf.shape, { category: 'gradients', zero: true }))
  return leaf.grad
}

/** Elements that are added at a time where types differ. */
const PART = 2 ** 18

/** Summed in f32, rounded once to the type of the leaf's gradient. */
function addToLeaf(leaf: Tensor, gradient: Tensor): void {
  const sink = gradientOf(leaf)
  if (gradient.dtype === sink.dtype) {
    runOp('binary', [sink], [sink, gradient], [0])
    return
  }
  for (let from = 0; from < sink.count; from += PART) {
    tidy(() => {
      const part = (of: Tensor): Tensor => of.view([Math.min(PART, sink.count - from)], from)
      const [sum, addend] = [asF32(part(sink)), asF32(part(gradient))]
      runOp('binary', [sum], [sum, addend], [0])
      if (sink.dtype !== 'f32') runOp('cast', [part(sink)], [sum])
    })
  }
}

function asF32(x: Tensor): Tensor {
  if (x.dtype === 'f32') return x
  const wide = empty(x.shape)
  runOp('cast', [wide], [x])
  return wide
}

/**
 * Gradients of all leaves that `roots` depend on, added to their `grad`. Frees the graph, also where a rule throws.
 * `recomputed`: the roots are a part of the pass that runs now, computed again; its counts of uses go on.
 * `postponed`: gets the weight gradients that nothing else waits for.
 */
export function backward(
  roots: readonly Tensor[],
  rootGradients: readonly Tensor[],
  { recomputed = false, postponed }: { recomputed?: boolean; postponed?: PostponedWork | undefined } = {},
): void {
  const nodes = collect(roots)
  const outer = currentPass
  const pass = new BackwardPass(recomputed ? outer : undefined, nodes, postponed)
  currentPass = pass
  try {
    tidy(() =>
      noGrad(() => {
        roots.forEach((root, index) => {
          const gradient = rootGradients[index] as Tensor
          if (root.producer) pass.add({ node: root.producer as TapeNode, output: root.outputIndex }, gradient.hold())
        })
        for (const node of nodes) step(node, pass)
      }),
    )
  } catch (error) {
    for (const node of nodes) node.onFailure?.(error)
    throw error
  } finally {
    currentPass = outer
    pass.drop()
    for (const node of nodes) node.release()
  }
}

function collect(roots: readonly Tensor[]): TapeNode[] {
  const found = new Set<TapeNode>()
  const open = roots.flatMap((root) => (root.producer ? [root.producer as TapeNode] : []))
  while (open.length) {
    const node = open.pop() as TapeNode
    if (found.has(node)) continue
    if (node.consumed) {
      throw new ZeroshardError(
        'AUTOGRAD',
        `[backward] the graph of ${node.op} was already used; run forward again (a graph serves one backward)`,
      )
    }
    found.add(node)
    for (const edge of node.edges) if (edge && 'node' in edge) open.push(edge.node)
  }
  return [...found].sort((a, b) => b.sequence - a.sequence)
}

function step(node: TapeNode, pass: BackwardPass): void {
  const incoming = pass.take(node)
  const pending: (Tensor | undefined)[] = []
  const later = new Set<number>()
  try {
    if (incoming.some(Boolean)) {
      const context: BackwardContext = {
        needs: (index) => node.edges[index] !== undefined,
        sink: (index, dtype) => {
          const edge = node.edges[index]
          const sink = edge && !('node' in edge) ? gradientOf(edge) : undefined
          return sink?.dtype === 'f32' || sink?.dtype === dtype ? sink : undefined
        },
        postpone: (index, uses, work) => {
          const edge = node.edges[index]
          if (!pass.postponed || !edge || 'node' in edge) return false
          pass.postponed.add(uses, work, () => pass.leafDone(edge))
          later.add(index)
          return true
        },
      }
      for (const gradient of tidy(() => node.rule(incoming, context))) pending.push(gradient?.hold())
    } else if (node.leafUses) {
      for (const [leaf, count] of node.leafUses) pass.leafDone(leaf, count)
    }
    node.edges.forEach((edge, index) => {
      const gradient = pending[index]
      if (edge && gradient) checkGradient(node, index, edge, gradient)
      if (edge && 'node' in edge) {
        if (gradient) pass.add(edge, gradient)
      } else {
        if (edge && gradient) addToLeaf(edge, gradient)
        gradient?.drop()
      }
      pending[index] = undefined
      if (edge && !('node' in edge) && !later.has(index)) pass.leafDone(edge)
    })
  } finally {
    for (const gradient of [...incoming, ...pending]) gradient?.drop()
    node.release()
  }
}

/** A rule of one's own may be wrong: better said here than as a broadcast sum. */
function checkGradient(node: TapeNode, index: number, edge: Edge | Tensor, gradient: Tensor): void {
  const { shape } = 'node' in edge ? (edge.node.outputs[edge.output] as Tensor) : edge
  if (shape.length === gradient.shape.length && shape.every((size, dim) => size === gradient.shape[dim])) return
  throw new ZeroshardError(
    'AUTOGRAD',
    `[backward] the rule of ${node.op} gave ${gradient.describe()} as the gradient of input ${index}, which is [${shape.join(', ')}]`,
  )
}
