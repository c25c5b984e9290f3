// How the ranks of a job meet, over TCP on rank 0: values exchanged by name, and the news of a rank's failure.

import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { type ErrorCode, ZeroshardError } from '../binding/errors.js'
import type { RankEnvironment } from './env.js'
import { MeetingServer } from './server.js'
import { type Failure, prove, proves, receive, send, type ToRank } from './wire.js'

export interface Rendezvous {
  readonly rank: number
  readonly worldSize: number
  /** Every rank's value, by rank; collective. */
  exchange(key: string, value: string): Promise<string[]>
  /** Called once, when a rank failed or was lost. */
  onFailure(callback: (failure: Failure) => void): void
  /** Tells the other ranks that this one ends, and why. */
  fail(error: Error): void
  /** Collective, but after a failure. */
  close(): Promise<void>
}

/** Meets the other ranks. @throws RENDEZVOUS where they don't come, or don't belong together. */
export async function rendezvous(environment: RankEnvironment): Promise<Rendezvous> {
  const { rank, worldSize } = environment
  if (worldSize === 1) {
    return {
      rank,
      worldSize,
      exchange: async (_, value) => [value],
      onFailure: () => {},
      fail: () => {},
      close: async () => {},
    }
  }
  const server = rank === 0 ? await MeetingServer.listen(environment) : undefined
  try {
    const meeting = new Meeting(environment, await reach(environment), server)
    await meeting.admitted
    return meeting
  } catch (error) {
    await server?.close()
    throw error
  }
}

/** Connects to rank 0, which may not be there yet. */
async function reach({ masterAddress, masterPort, timeoutSeconds }: RankEnvironment): Promise<Socket> {
  const deadline = Date.now() + timeoutSeconds * 1000
  for (;;) {
    const socket = connect(masterPort, masterAddress)
    const error = await new Promise<Error | undefined>((done) =>
      socket.once('connect', () => done(undefined)).once('error', done),
    )
    if (!error) return socket
    if (Date.now() > deadline) {
      throw new ZeroshardError(
        'RENDEZVOUS',
        `rank 0 did not answer at ${masterAddress}:${masterPort} within ${timeoutSeconds} s (${error.message}); check MASTER_ADDR and MASTER_PORT`,
      )
    }
    await new Promise((done) => setTimeout(done, 50))
  }
}

interface Waiting {
  resolve(values: string[]): void
  reject(error: Error): void
}

class Meeting implements Rendezvous {
  readonly rank: number
  readonly worldSize: number
  readonly admitted: Promise<void>
  readonly #waiting = new Map<string, Waiting>()
  readonly #callbacks: ((failure: Failure) => void)[] = []
  #failure: Failure | undefined
  /** Here or elsewhere. */
  #failed = false
  #closing = false

  constructor(
    readonly environment: RankEnvironment,
    readonly socket: Socket,
    readonly server: MeetingServer | undefined,
  ) {
    this.rank = environment.rank
    this.worldSize = environment.worldSize
    socket.on('error', () => {})
    socket.on('close', () => {
      if (!this.#closing) this.#fail({ code: 'RANK_LOST', message: 'rank 0 ended without a word; see its output' })
    })
    this.admitted = this.#handshake()
  }

  #handshake(): Promise<void> {
    const { rank, worldSize, secret } = this.environment
    const nonce = randomBytes(16).toString('hex')
    return new Promise((resolve, reject) => {
      const refuse = (failure: Failure): void => {
        this.#closing = true
        this.socket.destroy()
        reject(new ZeroshardError(failure.code, `rank ${rank}: ${failure.message}`))
      }
      this.onFailure(refuse)
      receive<ToRank>(this.socket, (message) => {
        if (message.type === 'challenge') {
          send(this.socket, {
            type: 'hello',
            rank,
            worldSize,
            nonce,
            proof: prove(secret, `rank ${rank} of ${worldSize}`, message.nonce),
          })
        } else if (message.type === 'refused') refuse(message.failure)
        else if (message.type === 'welcome') {
          if (!proves(message.proof, secret, 'server', nonce)) {
            return refuse({ code: 'RENDEZVOUS', message: 'what listens at MASTER_PORT is not rank 0 of this job' })
          }
          this.#callbacks.length = 0 // the refusal above
          resolve()
        } else this.#handle(message)
      })
    })
  }

  #handle(message: ToRank): void {
    if (message.type === 'all') {
      this.#waiting.get(message.key)?.resolve(message.values)
      this.#waiting.delete(message.key)
    } else if (message.type === 'failed') this.#fail(message.failure)
    else if (message.type === 'bye') this.socket.end()
  }

  #fail(failure: Failure): void {
    this.#failed = true
    if (this.#failure) return
    this.#failure = failure
    for (const { reject } of this.#waiting.values()) reject(errorOf(failure))
    this.#waiting.clear()
    for (const callback of this.#callbacks) callback(failure)
  }

  exchange(key: string, value: string): Promise<string[]> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(errorOf(this.#failure))
      const { timeoutSeconds } = this.environment
      const timer = setTimeout(() => {
        this.#waiting.delete(key)
        reject(
          new ZeroshardError(
            'RENDEZVOUS',
            `not all ${this.worldSize} ranks came to '${key}' within ${timeoutSeconds} s; look at the others' output`,
          ),
        )
      }, timeoutSeconds * 1000)
      this.#waiting.set(key, {
        resolve: (values) => {
          clearTimeout(timer)
          resolve(values)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      })
      send(this.socket, { type: 'put', key, value })
    })
  }

  onFailure(callback: (failure: Failure) => void): void {
    if (this.#failure) callback(this.#failure)
    else this.#callbacks.push(callback)
  }

  fail(error: Error): void {
    this.#failed = true
    if (this.#failure) return
    const code: ErrorCode = error instanceof ZeroshardError ? error.code : 'INTERNAL'
    send(this.socket, { type: 'fail', failure: { code, message: `rank ${this.rank}: ${error.message}` } })
  }

  async close(): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    const closed = new Promise((done) => this.socket.once('close', done))
    if (this.socket.destroyed) return this.server?.close()
    send(this.socket, { type: 'bye' })
    await this.server?.close()
    // After a failure rank 0 may hang, and never answer.
    const limit = this.#failed ? 1000 : this.environment.timeoutSeconds * 1000
    const timer = setTimeout(() => this.socket.destroy(), limit)
    await closed
    clearTimeout(timer)
  }
}

const errorOf = ({ code, message }: Failure): ZeroshardError => new ZeroshardError(code, message)
