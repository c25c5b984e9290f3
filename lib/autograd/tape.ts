// The tape: each differentiable operation records a node; backward walks the nodes in reverse order.
// It knows no particular operation. Saved tensors are held here and released as backward consumes them.

import { ZeroshardError } from '../binding/errors.js'
import { tidy, unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'

/** What a gradient rule may use. */
export interface BackwardContext {
  /** True where input `index` wants a gradient. */
  needs(index: number): boolean
  /** The f32 gradient buffer of input `index` where that is a leaf: a rule may add to it directly and return undefined. */
  sink(index: number): Tensor | undefined
  /**
   * In a backward whose weight gradients come later: keeps `work`, which adds to the sink of `index`, and the tensors
   * that it uses. False in a whole backward: do it now.
   */
  postpone(index: number, uses: readonly Tensor[], work: () => void): boolean
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

/** Gradients of the inputs, given those of the outputs (undefined: not used). Returned tensors belong to the tape. */
export type BackwardRule = (
  gradients: readonly (Tensor | undefined)[],
  context: BackwardContext,
) => readonly (Tensor | undefined)[]

interface Edge {
  node: TapeNode
  output: number
}

class TapeNode {
  readonly sequence = nextSequence++
  readonly edges: (Edge | Tensor | undefined)[]
  consumed = false

  constructor(
    readonly op: string,
    inputs: readonly Tensor[],
    readonly outputShapes: readonly Tensor[],
    readonly saved: readonly Tensor[],
    readonly rule: BackwardRule,
    /** Leaves that a recomputed part will use, with the number of uses. */
    readonly leafUses: ReadonlyMap<Tensor, number> | undefined,
  ) {
    this.edges = inputs.map((input) => {
      if (!input.requiresGrad) return undefined
      return input.producer ? { node: input.producer as TapeNode, output: input.outputIndex } : input
    })
    for (const tensor of saved) tensor.hold()
  }

  release(): void {
    if (this.consumed) return
    this.consumed = true
    for (const tensor of this.saved) tensor.unhold()
  }
}

let nextSequence = 1
let enabled = true
/** While a part runs that will be recomputed: which leaves it uses. */
let leafCollector: Map<Tensor, number> | undefined
/** While such a part is recomputed in backward: the outer pass, whose use counts go on. */
let outerPass: BackwardPass | undefined

/** Runs `fn` without recording. */
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
export const inBackward = (): boolean => outerPass !== undefined

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
  const absent = { requiresGrad: false } as Tensor
  const node = new TapeNode(
    op,
    inputs.map((input) => input ?? absent),
    outputs.map(shapeOnly),
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

const shapeOnly = (tensor: Tensor): Tensor => ({ shape: tensor.shape, dtype: tensor.dtype }) as Tensor

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
    if (!slots) this.gradients.set(edge.node, (slots = new Array(edge.node.outputShapes.length).fill(undefined)))
    const known = slots[edge.output]
    slots[edge.output] = known ? addGradients(known, gradient) : gradient
  }

  leafDone(leaf: Tensor): void {
    const left = (this.uses.get(leaf) ?? 1) - 1
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

/** The leaf's f32 gradient, zero-filled at first use. */
export function gradientOf(leaf: Tensor): Tensor {
  leaf.grad ??= unscoped(() => empty(leaf.shape, { category: 'gradients', zero: true }))
  return leaf.grad
}

function addToLeaf(leaf: Tensor, gradient: Tensor): void {
  const sink = gradientOf(leaf)
  if (gradient.dtype === 'f32') {
    runOp('binary', [sink], [sink, gradient], [0])
    return
  }
  const wide = empty(gradient.shape)
  runOp('cast', [wide], [gradient])
  runOp('binary', [sink], [sink, wide], [0])
  wide.dispose()
}

/**
 * Gradients of all leaves that `roots` depend on, added to their `grad`. Frees the graph. With `postponed`, weight
 * gradients that nothing else waits for are left there.
 */
export function backward(roots: readonly Tensor[], rootGradients: readonly Tensor[], postponed?: PostponedWork): void {
  const nodes = collect(roots)
  const outer = outerPass
  const pass = new BackwardPass(outer, nodes, postponed)
  outerPass = pass
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
  } finally {
    outerPass = outer
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
  const incoming = pass.gradients.get(node) ?? []
  const later = new Set<number>()
  const context: BackwardContext = {
    needs: (index) => node.edges[index] !== undefined,
    sink: (index) => {
      const edge = node.edges[index]
      return edge && !('node' in edge) ? gradientOf(edge) : undefined
    },
    postpone: (index, uses, work) => {
      const edge = node.edges[index]
      if (!pass.postponed || !edge || 'node' in edge) return false
      pass.postponed.add(uses, work, () => pass.leafDone(edge))
      later.add(index)
      return true
    },
  }
  const results = incoming.some(Boolean) || node.leafUses ? tidy(() => node.rule(incoming, context)) : []
  for (const gradient of results) gradient?.hold()
  node.edges.forEach((edge, index) => {
    const gradient = results[index]
    if (edge && 'node' in edge) {
      if (gradient) pass.add(edge, gradient)
      return
    }
    if (edge && gradient) addToLeaf(edge, gradient)
    gradient?.drop()
    if (edge && !later.has(index)) pass.leafDone(edge)
  })
  for (const gradient of incoming) gradient?.drop()
  node.release()
  pass.gradients.delete(node)
}
