// TensorBoard's event file: length-framed records with masked CRC32C (TFRecord), each a protocol buffer `Event`
// (tensorflow/core/util/event.proto): wall_time 1 double, step 2 int64, file_version 3 string, summary 5,
// session_log 7; in a summary values 1; in a value tag 1 string, simple_value 2 float.

import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { MonitorEvent, Sink } from '../monitor.js'

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  return value
})

/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crcTable[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8)
  return ~crc >>> 0
}

function maskedCrc(bytes: Uint8Array): Buffer {
  const crc = crc32c(bytes)
  const masked = (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
  const result = Buffer.alloc(4)
  result.writeUInt32LE(masked)
  return result
}

function record(data: Buffer): Buffer {
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(data.length))
  return Buffer.concat([length, maskedCrc(length), data, maskedCrc(data)])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = BigInt(value)
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128)
    rest >>= 7n
  }
  return Buffer.from([...bytes, Number(rest)])
}

const [wireVarint, wireDouble, wireBytes, wireFloat] = [0, 1, 2, 5]
const key = (field: number, wire: number): Buffer => varint((field << 3) | wire)
const integer = (field: number, value: number): Buffer => Buffer.concat([key(field, wireVarint), varint(value)])
const bytes = (field: number, value: Buffer): Buffer =>
  Buffer.concat([key(field, wireBytes), varint(value.length), value])
function double(field: number, value: number): Buffer {
  const data = Buffer.alloc(8)
  data.writeDoubleLE(value)
  return Buffer.concat([key(field, wireDouble), data])
}
function float(field: number, value: number): Buffer {
  const data = Buffer.alloc(4)
  data.writeFloatLE(value)
  return Buffer.concat([key(field, wireFloat), data])
}

const sessionStart = 1

export class TensorBoardFile implements Sink {
  readonly path: string
  readonly #file: number

  /** `resumedAt`: TensorBoard then forgets what earlier files of the folder have from that step on. */
  constructor(folder: string, resumedAt?: number) {
    mkdirSync(folder, { recursive: true })
    const seconds = String(Math.floor(Date.now() / 1000)).padStart(10, '0')
    this.path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.0`)
    this.#file = openSync(this.path, 'a')
    const start = [this.#event(bytes(3, Buffer.from('brain.Event:2')))]
    if (resumedAt !== undefined) start.push(this.#event(integer(2, resumedAt), bytes(7, integer(1, sessionStart))))
    writeFileSync(this.#file, Buffer.concat(start))
  }

  #event(...fields: Buffer[]): Buffer {
    return record(Buffer.concat([double(1, Date.now() / 1000), ...fields]))
  }

  write(events: readonly MonitorEvent[]): void {
    const records = events.map(({ name, value, step }) =>
      this.#event(integer(2, step), bytes(5, bytes(1, Buffer.concat([bytes(1, Buffer.from(name)), float(2, value)])))),
    )
    writeFileSync(this.#file, Buffer.concat(records))
  }

  close(): void {
    closeSync(this.#file)
  }
}
