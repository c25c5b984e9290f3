// Rank 0's side of the rendezvous: collects a value from every rank, answers all; tells all when one is lost.

import { randomBytes } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { ZeroshardError } from '../binding/errors.js'
import type { RankEnvironment } from './env.js'
import { type Failure, prove, proves, receive, send, type ToServer } from './wire.js'

export class MeetingServer {
  readonly #ranks = new Map<number, Socket>()
  readonly #puts = new Map<string, Map<number, string>>()
  readonly #sockets = new Set<Socket>()
  readonly #gone = new Set<number>()
  #failed = false

  private constructor(
    readonly environment: RankEnvironment,
    readonly server: Server,
  ) {
    server.on('connection', (socket) => this.#greet(socket))
  }

  /** @throws RENDEZVOUS where the port is taken. */
  static async listen(environment: RankEnvironment): Promise<MeetingServer> {
    const server = createServer()
    const { masterPort, masterAddress } = environment
    await new Promise<void>((done, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        reject(
          new ZeroshardError(
            'RENDEZVOUS',
            cause.code === 'EADDRINUSE'
              ? `rank 0 cannot listen on ${masterAddress}:${masterPort}: the port is in use; set MASTER_PORT to a free one`
              : `rank 0 cannot listen on ${masterAddress}:${masterPort}: ${cause.message}`,
            { cause },
          ),
        ),
      )
      server.listen(masterPort, masterAddress, done)
    })
    return new MeetingServer(environment, server)
  }

  #greet(socket: Socket): void {
    const nonce = randomBytes(16).toString('hex')
    let rank: number | undefined
    this.#sockets.add(socket)
    send(socket, { type: 'challenge', nonce })
    receive<ToServer>(socket, (message) => {
      if (rank !== undefined) this.#handle(rank, message)
      else if (message.type === 'hello') rank = this.#admit(socket, nonce, message)
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#sockets.delete(socket)
      if (rank !== undefined && !this.#gone.has(rank)) {
        this.#fail({ code: 'RANK_LOST', message: `rank ${rank} ended without a word; see its output` })
      }
    })
  }

  #admit(socket: Socket, nonce: string, hello: Extract<ToServer, { type: 'hello' }>): number | undefined {
    const { secret, worldSize } = this.environment
    const refuse = (message: string): undefined => {
      send(socket, { type: 'refused', failure: { code: 'RENDEZVOUS', message } })
      socket.end()
      return undefined
    }
    if (!proves(hello.proof, secret, `rank ${hello.rank} of ${hello.worldSize}`, nonce)) {
      return refuse('the secret is not that of rank 0; give all ranks the same ZEROSHARD_SECRET')
    }
    if (hello.worldSize !== worldSize) return refuse(`WORLD_SIZE is ${hello.worldSize} here and ${worldSize} on rank 0`)
    if (this.#ranks.has(hello.rank)) return refuse(`there is already a rank ${hello.rank}; RANK must differ`)
    this.#ranks.set(hello.rank, socket)
    send(socket, { type: 'welcome', proof: prove(secret, 'server', hello.nonce) })
    return hello.rank
  }

  #handle(rank: number, message: ToServer): void {
    if (message.type === 'put') this.#put(rank, message.key, message.value)
    else if (message.type === 'fail') this.#fail(message.failure)
    else if (message.type === 'bye') this.#gone.add(rank)
  }

  #put(rank: number, key: string, value: string): void {
    let values = this.#puts.get(key)
    if (!values) this.#puts.set(key, (values = new Map()))
    values.set(rank, value)
    if (values.size < this.environment.worldSize) return
    this.#puts.delete(key)
    const ordered = Array.from(
      { length: values.size },
      (_, index) => (values as Map<number, string>).get(index) as string,
    )
    for (const socket of this.#ranks.values()) send(socket, { type: 'all', key, values: ordered })
  }

  #fail(failure: Failure): void {
    if (this.#failed) return
    this.#failed = true
    for (const socket of this.#ranks.values()) send(socket, { type: 'failed', failure })
  }

  /**
   * Waits until every rank has said goodbye (briefly after a failure), stops listening, and only then lets them go: who
   * meets again finds the next server, not this one.
   */
  async close(): Promise<void> {
    const deadline = Date.now() + 1000 * (this.#failed ? 1 : this.environment.timeoutSeconds)
    while (this.#gone.size < this.#ranks.size && Date.now() < deadline && !this.#failed) {
      await new Promise((done) => setTimeout(done, 5))
    }
    const stopped = new Promise((done) => this.server.close(done))
    for (const socket of this.#sockets) {
      send(socket, { type: 'bye' })
      socket.end()
    }
    // A rank that hangs does not close its end.
    const timer = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy()
    }, 1000)
    await stopped
    clearTimeout(timer)
  }
}
