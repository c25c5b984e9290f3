// A tensor: a dense row-major range of a native storage, known by an integer handle.
// Ownership: the scope in which a tensor is made frees it, unless it is returned or kept; the tape holds
// what backward needs. Garbage collection is only the backstop.

import { ZeroshardError } from '../binding/errors.js'
import { binding, categories, dtypes, throwNative } from '../binding/native.js'
import { adopt } from './scope.js'

export type DType = (typeof dtypes)[number]
export type Category = (typeof categories)[number]
export type Shape = readonly number[]
export type NumericArray = Float32Array | Uint16Array | Int32Array | Uint8Array | BigInt64Array

export const dtypeIndex: Record<DType, number> = Object.fromEntries(
  dtypes.map((name, index) => [name, index]),
) as Record<DType, number>
export const bytesPerElement: Record<DType, number> = {
  ...{ f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1, i64: 8 },
  ...{ f8e4m3: 1, f8e5m2: 1 },
}
const arrayOf = {
  f32: Float32Array,
  bf16: Uint16Array,
  f16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
  i64: BigInt64Array,
  f8e4m3: Uint8Array,
  f8e5m2: Uint8Array,
} as const

export const COMPUTE = 0
export const COMMUNICATION = 1
export const COPY = 2
export const DISK = 3
/** Receives, which wait for their senders. */
export const MESSAGES = 4

/** Number of elements of a shape. */
export const countOf = (shape: Shape): number => shape.reduce((product, size) => product * size, 1)

/** Shared by all views of one allocation: in-place work is allowed only where `refs` is 1. */
interface SharedStorage {
  refs: number
}

const backstop = new FinalizationRegistry<{ handle: number; storage: SharedStorage }>((cell) => {
  if (cell.handle) release(cell)
})

function release(cell: { handle: number; storage: SharedStorage }): void {
  const { native, packet } = binding()
  packet[0] = cell.handle
  cell.handle = 0
  cell.storage.refs--
  if (native.free() < 0) throwNative('dispose')
}

/** What produced a tensor; the tape's own type, opaque here. */
export interface Producer {
  readonly sequence: number
  /** Nobody can use that output any more, but operations that did already. */
  outputDisposed(): void
  /** One more user, until an outputDisposed(). */
  retain(): void
  /** Called where a backward that goes through it throws. */
  onFailure?: (error: unknown) => void
}

/**
 * A contiguous, row-major range of native memory. dispose() frees it; scopes do so for what they made.
 *
 * @example
 * const x = tensor([1, 2, 3, 4], [2, 2])
 * x.describe() // 'f32 [2, 2]'
 * const values = await x.data()
 * values[3] // 4
 * x.dispose()
 */
export class Tensor {
  /** Set on leaves that want a gradient, and on results that depend on one. */
  requiresGrad = false
  /** Gradient of a leaf, after backward: f32 unless it was given another. The leaf owns it. */
  grad: Tensor | undefined
  /** Called in backward when a leaf's gradient is complete for this pass. */
  onGradient: (() => void) | undefined
  producer: Producer | undefined
  outputIndex = 0
  /** Shown in errors. */
  name: string | undefined
  /** Of a tensor whose memory comes and goes (see `lent`): called when it is needed and not there; must `lend`. */
  lender: (() => void) | undefined
  /** Called when the last hold of the tape is given back. */
  onIdle: (() => void) | undefined
  readonly count: number
  readonly #cell: { handle: number; storage: SharedStorage }
  readonly #lent: boolean
  #holds = 0
  #disposed = false
  #guarded = false

  constructor(
    handle: number,
    readonly shape: Shape,
    readonly dtype: DType,
    storage?: SharedStorage,
  ) {
    this.count = countOf(shape)
    this.#cell = { handle, storage: storage ?? { refs: 0 } }
    this.#cell.storage.refs++
    this.#lent = handle === 0
    if (!this.#lent && !adopt(this)) this.guard()
  }

  /** A tensor without memory until `lender` lends it some; no scope owns it. */
  static lent(shape: Shape, dtype: DType): Tensor {
    return new Tensor(0, shape, dtype)
  }

  /** The native handle; throws DISPOSED after dispose(). */
  get handle(): number {
    if (this.#disposed && this.#holds === 0) {
      throw new ZeroshardError(
        'DISPOSED',
        `tensor ${this.describe()} was used after dispose(); keep() it or return it from its scope`,
      )
    }
    this.ensure()
    return this.#cell.handle
  }

  /** Has a lent tensor's memory brought. */
  ensure(): void {
    if (this.#lent && this.#cell.handle === 0 && !this.#disposed) this.lender?.()
  }

  /** Gives a lent tensor memory: takes over `view`, which has its shape. */
  lend(view: Tensor): void {
    this.#cell.handle = view.#cell.handle
    this.#cell.storage = view.#cell.storage
    view.#disposed = true
    view.#cell.handle = 0
    backstop.unregister(view.#cell)
  }

  /** Takes the memory of a lent tensor back; the next use asks its lender again. */
  takeBack(): void {
    if (this.#cell.handle) release(this.#cell)
  }

  /** Whether the tape (or another holder) will use it again. */
  get held(): boolean {
    return this.#holds > 0
  }

  get disposed(): boolean {
    return this.#disposed
  }
  get bytes(): number {
    return this.count * bytesPerElement[this.dtype]
  }
  /** True where no view and no other holder shares the memory. */
  get exclusive(): boolean {
    return !this.#lent && this.#cell.storage.refs === 1 && this.#holds <= 1
  }

  /** Throws where user code touches a tensor that only the tape still holds. */
  check(operation: string): this {
    if (this.#disposed) {
      throw new ZeroshardError('DISPOSED', `[${operation}] tensor ${this.describe()} was used after dispose()`)
    }
    return this
  }

  /** Registers the garbage collector's backstop, once; scopes call it for what leaves them. */
  guard(): void {
    if (this.#guarded) return
    this.#guarded = true
    backstop.register(this, this.#cell, this.#cell)
  }

  /** The tape's hold: keeps the memory through dispose(). */
  hold(): this {
    if (this.#holds++ === 0 && !this.#lent) this.guard()
    return this
  }

  unhold(): void {
    if (--this.#holds > 0) return
    if (this.#disposed) this.#free()
    else this.onIdle?.()
  }

  /** Gives a hold back and disposes the tensor where it was the last one. */
  drop(): void {
    if (--this.#holds > 0) return
    this.#disposed = true
    this.#free()
  }

  /** Frees the memory (or, while backward still needs it, marks it to be freed then). Twice is allowed. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.producer?.outputDisposed()
    if (this.#holds === 0) this.#free()
  }

  #free(): void {
    if (!this.#cell.handle) return
    backstop.unregister(this.#cell)
    release(this.#cell)
  }

  /** Another shape, or a contiguous part, of the same memory. `offset` in elements. Not on the tape (see ops.reshape). */
  view(shape: Shape, offset = 0, dtype: DType = this.dtype): Tensor {
    const { native, packet } = binding()
    packet[0] = this.handle
    packet[1] = offset
    packet[2] = dtypeIndex[dtype]
    writeShape(packet, 3, shape)
    const handle = native.view()
    if (handle < 0) throwNative('view')
    return new Tensor(handle, shape, dtype, this.#cell.storage)
  }

  /** Counts the memory, with all views of it, in another category: 'host' for what is offloaded. */
  recategorize(category: Category): void {
    binding().native.recategorize(this.handle, categories.indexOf(category))
  }

  /**
   * Uploads values; their element type must be this tensor's (Uint16Array for bf16 and f16, Uint8Array for 8-bit codes).
   * `constant`: the same in every step, so that a captured step may do it, too.
   */
  write(values: NumericArray, { constant = false } = {}): this {
    if (values.length !== this.count || values.BYTES_PER_ELEMENT !== bytesPerElement[this.dtype]) {
      throw new ZeroshardError(
        'SHAPE',
        `[write] ${values.constructor.name} of ${values.length} does not fill ${this.describe()}`,
      )
    }
    binding().native.write(this.handle, values, COMPUTE, constant)
    return this
  }

  /** The values, when the work that makes them is done. */
  async data(stream = COMPUTE): Promise<NumericArray> {
    const target = new arrayOf[this.dtype](this.count)
    await binding().native.read(this.handle, target, stream)
    return target
  }

  /** Blocks the event loop until the values are there; for tests and tools. */
  dataSync(): NumericArray {
    const target = new arrayOf[this.dtype](this.count)
    binding().native.readSync(this.handle, target, COMPUTE)
    return target
  }

  /** The value of a one-element f32 tensor. */
  async item(): Promise<number> {
    if (this.count !== 1)
      throw new ZeroshardError('SHAPE', `[item] needs one element, ${this.describe()} has ${this.count}`)
    return Number((await this.data())[0])
  }

  describe(): string {
    return `${this.name ? `'${this.name}' ` : ''}${this.dtype} [${this.shape.join(', ')}]`
  }
}

function writeShape(packet: Float64Array, at: number, shape: Shape): void {
  packet[at] = shape.length
  for (let i = 0; i < shape.length; i++) packet[at + 1 + i] = shape[i] as number
}

export interface AllocateOptions {
  dtype?: DType
  category?: Category
  zero?: boolean
  /** In memory that the other ranks of this host can read directly. */
  shared?: boolean
}

/**
 * Uninitialised memory (zeros with `zero`).
 *
 * @example
 * empty([2, 3], { dtype: 'bf16', zero: true }).bytes // 12
 */
export function empty(shape: Shape, options: AllocateOptions = {}): Tensor {
  const { native, packet } = binding()
  const dtype = options.dtype ?? 'f32'
  packet[0] = dtypeIndex[dtype]
  packet[1] = categories.indexOf(options.category ?? 'activations')
  packet[2] = (options.zero ? 1 : 0) | (options.shared ? 2 : 0)
  writeShape(packet, 3, shape)
  const handle = native.alloc()
  if (handle < 0) throwNative('empty')
  return new Tensor(handle, shape, dtype)
}

/**
 * A tensor of given values; f32 from numbers unless the array says otherwise. `constant`: the values are the same in
 * every step, so that a model's forward that makes them can be captured (`cuda_graphs`).
 *
 * @example
 * tensor([1, 2, 3, 4], [2, 2]) // [1, 2, 3, 4]
 * tensor(Int32Array.of(5)).dtype // 'i32'
 */
export function tensor(
  values: readonly number[] | NumericArray,
  shape?: Shape,
  options: AllocateOptions & { constant?: boolean } = {},
): Tensor {
  const typed = Array.isArray(values)
    ? fromNumbers(values as number[], options.dtype ?? 'f32')
    : (values as NumericArray)
  const dtype = options.dtype ?? dtypeOfArray(typed)
  const { constant = false } = options
  const made = empty(shape ?? [typed.length], { ...options, dtype })
  try {
    return made.write(typed, { constant })
  } catch (error) {
    made.dispose()
    throw error
  }
}

function dtypeOfArray(values: NumericArray): DType {
  if (values instanceof Float32Array) return 'f32'
  if (values instanceof Int32Array) return 'i32'
  if (values instanceof Uint8Array) return 'u8'
  if (values instanceof BigInt64Array) return 'i64'
  throw new ZeroshardError('DTYPE', '[tensor] a Uint16Array needs { dtype: "bf16" } or { dtype: "f16" }')
}

function fromNumbers(values: number[], dtype: DType): NumericArray {
  if (dtype === 'i64') return BigInt64Array.from(values, BigInt)
  if (['bf16', 'f16', 'f8e4m3', 'f8e5m2'].includes(dtype)) {
    throw new ZeroshardError('DTYPE', `[tensor] make it f32 and cast it to ${dtype}`)
  }
  return new arrayOf[dtype](values)
}

/** Scalars of an operation; as a function: a graph asks again at each launch (see graph.ts). */
export type Scalars = readonly number[] | (() => readonly number[])

/** A call of a graph whose scalars are asked for at each launch. */
export interface LiveScalars {
  call: number
  scalars: () => readonly number[]
}
/** Those of the graph that is being captured; undefined: none is. */
export const liveCalls: { list: LiveScalars[] | undefined } = { list: undefined }

/** Queues one native operation. The lowest call of all ops: outputs, inputs (0 = absent), scalars as in native/ops. */
export function runOp(
  op: string,
  outputs: readonly (Tensor | undefined)[],
  inputs: readonly (Tensor | undefined)[],
  given: Scalars = [],
  stream = COMPUTE,
): void {
  const { native, packet, ops } = binding()
  const isLive = typeof given === 'function'
  const scalars = isLive ? given() : given
  const info = ops.get(op)
  if (info?.scalars !== scalars.length) {
    throw new ZeroshardError(
      'NATIVE',
      info
        ? `[${op}] takes ${info.scalars} scalars, got ${scalars.length}`
        : `the addon has no operation ${op}; rebuild it (npm run build)`,
    )
  }
  // A lender may run operations of its own, through the same packet: all memory first.
  for (const output of outputs) output?.ensure()
  for (const input of inputs) input?.ensure()
  let at = 0
  packet[at++] = info.id
  packet[at++] = stream
  for (const output of outputs) packet[at++] = output ? output.handle : 0
  for (const input of inputs) packet[at++] = input ? input.handle : 0
  for (const scalar of scalars) packet[at++] = scalar
  if (isLive && liveCalls.list) {
    const call = native.runLive()
    if (call < 0) throwNative(op)
    liveCalls.list.push({ call, scalars: given })
  } else if (native.run() < 0) throwNative(op)
}
