// A reader of TensorBoard's event files, written from the format's description and not from lib/: TFRecord framing,
// CRC-32C bit by bit, and as much of protocol buffers as an Event needs.

import { readFileSync } from 'node:fs'

export interface ReadEvent {
  time: number
  step: number
  version?: string
  tag?: string
  value?: number
  session?: number
}

function checksum(bytes: Uint8Array): number {
  let remainder = 0xffffffffn
  for (const byte of bytes) {
    remainder ^= BigInt(byte)
    for (let bit = 0; bit < 8; bit++) remainder = remainder & 1n ? (remainder >> 1n) ^ 0x82f63b78n : remainder >> 1n
  }
  const crc = remainder ^ 0xffffffffn
  return Number((((crc >> 15n) | ((crc << 17n) & 0xffffffffn)) + 0xa282ead8n) & 0xffffffffn)
}

/** Fields of one message in order: number, and what its wire type holds. */
function fields(message: Buffer): [number, number | Buffer][] {
  const found: [number, number | Buffer][] = []
  let at = 0
  const varint = (): number => {
    let [value, scale] = [0, 1]
    for (;;) {
      const byte = message.readUInt8(at++)
      value += (byte & 127) * scale
      if (byte < 128) return value
      scale *= 128
    }
  }
  const take = (count: number): Buffer => {
    if (at + count > message.length) throw new Error('a field is longer than its message')
    at += count
    return message.subarray(at - count, at)
  }
  while (at < message.length) {
    const tag = varint()
    const wire = tag % 8
    if (wire === 0) found.push([tag >> 3, varint()])
    else if (wire === 1) found.push([tag >> 3, take(8).readDoubleLE()])
    else if (wire === 2) found.push([tag >> 3, take(varint())])
    else if (wire === 5) found.push([tag >> 3, take(4).readFloatLE()])
    else throw new Error(`wire type ${wire}`)
  }
  return found
}

function parse(message: Buffer): ReadEvent {
  const event: ReadEvent = { time: 0, step: 0 }
  for (const [field, content] of fields(message)) {
    if (field === 1) event.time = content as number
    else if (field === 2) event.step = content as number
    else if (field === 3) event.version = content.toString()
    else if (field === 7) event.session = fields(content as Buffer)[0]?.[1] as number
    else if (field === 5) {
      const [[, value] = [0, Buffer.alloc(0)]] = fields(content as Buffer)
      for (const [inner, part] of fields(value as Buffer)) {
        if (inner === 1) event.tag = part.toString()
        else if (inner === 2) event.value = part as number
      }
    } else throw new Error(`field ${field} of an event`)
  }
  return event
}

/** Throws where a checksum is wrong or the file ends within a record. */
export function readEventFile(path: string): ReadEvent[] {
  const data = readFileSync(path)
  const events: ReadEvent[] = []
  for (let at = 0; at < data.length; ) {
    const length = Number(data.readBigUInt64LE(at))
    if (data.readUInt32LE(at + 8) !== checksum(data.subarray(at, at + 8))) throw new Error(`length at ${at}`)
    const body = data.subarray(at + 12, at + 12 + length)
    if (body.length < length || data.readUInt32LE(at + 12 + length) !== checksum(body))
      throw new Error(`record at ${at}`)
    events.push(parse(body))
    at += 16 + length
  }
  return events
}
