// Messages of the rendezvous: one JSON object per line, over TCP.

import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import type { ErrorCode } from '../binding/errors.js'

export interface Failure {
  code: ErrorCode
  message: string
}

export type ToServer =
  | { type: 'hello'; rank: number; worldSize: number; nonce: string; proof: string }
  | { type: 'put'; key: string; value: string }
  | { type: 'fail'; failure: Failure }
  | { type: 'bye' }

export type ToRank =
  | { type: 'challenge'; nonce: string }
  | { type: 'welcome'; proof: string }
  | { type: 'refused'; failure: Failure }
  | { type: 'all'; key: string; values: string[] }
  | { type: 'failed'; failure: Failure }
  | { type: 'bye' }

/** A line longer than this is no message of ours. */
const MAX_LINE = 1 << 24

export function send(socket: Socket, message: ToServer | ToRank): void {
  if (socket.writable) socket.write(`${JSON.stringify(message)}\n`)
}

/** Calls `onMessage` for each whole line; destroys the socket where something else speaks. */
export function receive<T>(socket: Socket, onMessage: (message: T) => void): void {
  let rest = ''
  socket.setNoDelay(true).setEncoding('utf8')
  socket.on('data', (chunk: string) => {
    rest += chunk
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end)
      rest = rest.slice(end + 1)
      let message: T
      try {
        message = JSON.parse(line) as T
      } catch {
        socket.destroy()
        return
      }
      onMessage(message)
    }
    if (rest.length > MAX_LINE) socket.destroy()
  })
}

/** Shows that the speaker knows the secret. */
export const prove = (secret: string, role: string, nonce: string): string =>
  createHmac('sha256', secret).update(`${role}:${nonce}`).digest('hex')

export function proves(proof: unknown, secret: string, role: string, nonce: string): boolean {
  const expected = Buffer.from(prove(secret, role, nonce))
  const given = Buffer.from(String(proof))
  return given.length === expected.length && timingSafeEqual(given, expected)
}
