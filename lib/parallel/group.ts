// A process group: collectives between ranks, queued on the communication stream. Over one rank a
// collective returns its input; nothing above asks for the size.

import type { ErrorCode } from '../binding/errors.js'
import { ZeroshardError } from '../binding/errors.js'
import { binding, collectiveKinds, throwNative } from '../binding/native.js'
import { COMMUNICATION, MESSAGES, runOp, type Tensor } from '../tensor/tensor.js'

type Kind = (typeof collectiveKinds)[number]

export interface CallOptions {
  /** Mean instead of sum. */
  average?: boolean
  /** Part of the fingerprint: calls that mean different things differ in it. */
  tag?: number
  stream?: number
}

/**
 * Ranks that communicate. Every member makes the same calls in the same order; they are queued, not awaited.
 *
 * @example
 * ProcessGroup.single().allReduce(tensor([1, 2])) // [1, 2]
 */
export class ProcessGroup {
  readonly size: number
  readonly #subgroups = new Map<string, ProcessGroup>()

  /** `ranks`: world ranks of the members, in order; `id`: the native group. */
  constructor(
    readonly id: number,
    readonly ranks: readonly number[],
    readonly rank: number,
  ) {
    this.size = ranks.length
  }

  /** This process alone. */
  static single(): ProcessGroup {
    return new ProcessGroup(0, [0], 0)
  }

  /**
   * The group of some of this group's ranks (world ranks, this one among them). Collective over those; the same
   * ranks give the same group.
   */
  subgroup(ranks: readonly number[]): ProcessGroup {
    const world = this.ranks[this.rank] as number
    const rank = ranks.indexOf(world)
    if (rank < 0) throw new ZeroshardError('ARGUMENT', `[subgroup] rank ${world} is not among ${ranks.join(', ')}`)
    if (ranks.join() === this.ranks.join()) return this
    const known = this.#subgroups.get(ranks.join())
    if (known) return known
    const id = ranks.length === 1 ? 0 : binding().native.commGroup([...ranks])
    const group = new ProcessGroup(id, [...ranks], rank)
    this.#subgroups.set(ranks.join(), group)
    return group
  }

  /** This rank alone. */
  get alone(): ProcessGroup {
    return this.size === 1 ? this : new ProcessGroup(0, [this.ranks[this.rank] as number], 0)
  }

  /** Another group of the same ranks, whose collectives may run beside this one's. Collective. */
  duplicate(): ProcessGroup {
    return this.size === 1 ? this : new ProcessGroup(binding().native.commGroup([...this.ranks]), this.ranks, this.rank)
  }

  /**
   * Messages from one of its ranks to another go between their devices from now on, where they can, instead of through
   * the host. Both call it, in one order with all other links and groups of theirs.
   */
  link(from: number, to: number): void {
    if (this.size > 1) binding().native.commLink(this.id, from, to)
  }

  /**
   * A buffer alike on all ranks, which keeps its memory until the group ends or it is unregistered: they may exchange it
   * without copies. Does nothing where it is registered. Collective.
   */
  register(tensor: Tensor): void {
    if (this.size > 1) binding().native.commWindow(this.id, tensor.handle)
  }

  /** Before a registered buffer moves. Collective. */
  unregister(tensor: Tensor): void {
    if (this.size > 1) binding().native.commDropWindow(this.id, tensor.handle)
  }

  /** Sum (or mean) over the ranks, in place or in `output`, in rank order in f32. */
  allReduce(tensor: Tensor, { output = tensor, ...options }: CallOptions & { output?: Tensor } = {}): Tensor {
    this.#expect('allReduce', output, tensor.count)
    if (this.size > 1) this.#call('allReduce', output, tensor, 0, options)
    else if (output !== tensor) runOp('cast', [output], [tensor], [], options.stream ?? COMMUNICATION)
    return output
  }

  /** input (size · n) summed over the ranks; this rank gets part `rank` in output (n). */
  reduceScatter(output: Tensor, input: Tensor, options: CallOptions = {}): Tensor {
    this.#expect('reduceScatter', input, output.count * this.size)
    if (this.size > 1) this.#call('reduceScatter', output, input, output.count, options)
    else runOp('cast', [output], [input], [], options.stream ?? COMMUNICATION)
    return output
  }

  /** Each rank's input (n), in rank order, in output (size · n). The input may be its own slot of the output. */
  allGather(output: Tensor, input: Tensor, options: CallOptions = {}): Tensor {
    this.#expect('allGather', output, input.count * this.size)
    if (this.size > 1) this.#call('allGather', output, input, input.count, options)
    else runOp('cast', [output], [input], [], options.stream ?? COMMUNICATION)
    return output
  }

  /** root's values on every rank, in place. */
  broadcast(tensor: Tensor, root = 0): Tensor {
    if (this.size > 1) this.#call('broadcast', tensor, tensor, root)
    return tensor
  }

  /** Part r of input (size · n) goes to rank r; output (size · n) has the parts for this rank, in rank order. */
  allToAll(output: Tensor, input: Tensor, options: CallOptions = {}): Tensor {
    this.#expect('allToAll', output, input.count)
    if (input.count % this.size !== 0) this.#expect('allToAll', input, Math.ceil(input.count / this.size) * this.size)
    if (this.size > 1) this.#call('allToAll', output, input, input.count / this.size, options)
    else runOp('cast', [output], [input], [], options.stream ?? COMMUNICATION)
    return output
  }

  /** To rank `peer` of this group. Buffered: the tensor may be freed or written at once. */
  send(tensor: Tensor, peer: number, tag = 0): void {
    this.#call('send', undefined, tensor, peer, { tag })
  }

  /** From rank `peer`, in the order of its sends. On a stream of its own: what is sent or reduced does not wait for it. */
  recv(tensor: Tensor, peer: number, tag = 0): Tensor {
    this.#call('recv', tensor, undefined, peer, { tag, stream: MESSAGES })
    return tensor
  }

  /** Resolves when every rank has come here. */
  async barrier(): Promise<void> {
    if (this.size === 1) return
    this.#call('barrier', undefined, undefined, 0)
    await binding().native.synchronize(COMMUNICATION)
  }

  #expect(kind: Kind, tensor: Tensor, count: number): void {
    if (tensor.count !== count) {
      throw new ZeroshardError(
        'SHAPE',
        `[${kind}] ${tensor.describe()} must have ${count} elements for ${this.size} ranks`,
      )
    }
  }

  #call(
    kind: Kind,
    output: Tensor | undefined,
    input: Tensor | undefined,
    detail: number,
    { average = false, tag = 0, stream = COMMUNICATION }: CallOptions = {},
  ): void {
    const { native, packet } = binding()
    output?.ensure()
    input?.ensure()
    packet[0] = collectiveKinds.indexOf(kind)
    packet[1] = this.id
    packet[2] = stream
    packet[3] = output ? output.handle : 0
    packet[4] = input ? input.handle : 0
    packet[5] = detail // count per rank, root or peer
    packet[6] = tag
    packet[7] = average ? 1 : 0
    if (native.collective() < 0) throwNative(kind)
  }
}

/** What a group needs of the rendezvous. */
export interface Exchange {
  readonly rank: number
  readonly worldSize: number
  exchange(key: string, value: string): Promise<string[]>
  onFailure(callback: (error: { code: string; message: string }) => void): void
}

/** Connects the ranks of this host; the result is the world group. */
export async function connectWorld(
  meeting: Exchange,
  options: { jobId: string; timeoutSeconds: number },
): Promise<ProcessGroup> {
  const { rank, worldSize } = meeting
  if (worldSize === 1) return ProcessGroup.single()
  const { native } = binding()
  const facts = native.commCreate({ rank, worldSize, ...options })
  native.commConnect(await meeting.exchange('comm-facts', facts))
  meeting.onFailure((error) => native.commAbort(error.code as ErrorCode, error.message))
  await meeting.exchange('comm-connected', '')
  return new ProcessGroup(
    0,
    Array.from({ length: worldSize }, (_, index) => index),
    rank,
  )
}
