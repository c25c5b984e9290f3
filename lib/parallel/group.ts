// A process group: collectives between ranks, queued on the communication stream. Over one rank a
// collective returns its input; nothing above asks for the size.

import type { ErrorCode } from '../binding/errors.js'
import { ZeroshardError } from '../binding/errors.js'
import { binding, collectiveKinds, throwNative } from '../binding/native.js'
import { COMMUNICATION, runOp, type Tensor } from '../tensor/tensor.js'

type Kind = (typeof collectiveKinds)[number]

/** Ranks that communicate. Every member makes the same calls in the same order; they are queued, not awaited. */
export class ProcessGroup {
  readonly size: number

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

  /** Sum (or mean) over the ranks, in place, in rank order in f32. */
  allReduce(tensor: Tensor, average = false): Tensor {
    if (this.size > 1) this.#call('allReduce', tensor, tensor, 0, average)
    return tensor
  }

  /** input (size · n) summed over the ranks; this rank gets part `rank` in output (n). */
  reduceScatter(output: Tensor, input: Tensor, average = false): Tensor {
    this.#expect('reduceScatter', input, output.count * this.size)
    if (this.size > 1) this.#call('reduceScatter', output, input, output.count, average)
    else runOp('cast', [output], [input], [], COMMUNICATION)
    return output
  }

  /** Each rank's input (n), in rank order, in output (size · n). The input may be its own slot of the output. */
  allGather(output: Tensor, input: Tensor): Tensor {
    this.#expect('allGather', output, input.count * this.size)
    if (this.size > 1) this.#call('allGather', output, input, input.count, false)
    else runOp('cast', [output], [input], [], COMMUNICATION)
    return output
  }

  /** root's values on every rank, in place. */
  broadcast(tensor: Tensor, root = 0): Tensor {
    if (this.size > 1) this.#call('broadcast', tensor, tensor, root, false)
    return tensor
  }

  /** Resolves when every rank has come here. */
  async barrier(): Promise<void> {
    if (this.size === 1) return
    this.#call('barrier', undefined, undefined, 0, false)
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

  #call(kind: Kind, output: Tensor | undefined, input: Tensor | undefined, detail: number, average: boolean): void {
    const { native, packet } = binding()
    packet[0] = collectiveKinds.indexOf(kind)
    packet[1] = this.id
    packet[2] = COMMUNICATION
    packet[3] = output ? output.handle : 0
    packet[4] = input ? input.handle : 0
    packet[5] = detail // count per rank, root or peer
    packet[6] = 0
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
