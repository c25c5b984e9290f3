// Runs test/ranks/scripts/offload-layouts.mjs and compares what it tells of each place with that of none.

import type { Test } from 'tap'
import { Workspace } from './program.js'

type Bytes = Record<'parameters' | 'gradients' | 'optimizer' | 'activations' | 'buffers' | 'host' | 'total', number>

export interface Place {
  rows: [loss: number, norm: number | null, skipped: boolean][]
  rest: Place['rows']
  live: Bytes
  again: Bytes
  probe: Record<string, [sum: number, start: number | undefined, last: number | undefined]>
  changed: number[]
  visible: number
  tensors: number
}

export interface Case {
  stages: number[]
  ranks: number
  precision?: string
  accumulation?: number
  optimizer?: string
}

export type Places = Record<'none' | 'cpu' | 'nvme' | 'half', Place> & Record<string, Place | undefined>

/** Each stage's places; all but memory is compared here. */
export async function runOffload(
  t: Test,
  { stages, ranks, precision = 'fp32', accumulation = 1, optimizer = 'AdamW' }: Case,
) {
  const space = new Workspace(t)
  const name = `${ranks} ranks, ${precision}, accumulation ${accumulation}, ${optimizer}`
  const args = [space.folder, stages.join(), precision, String(accumulation), optimizer]
  const outcome = await space.launch('offload-layouts.mjs', args, ranks, { ZEROSHARD_NUM_THREADS: '1' })
  t.equal(outcome.status, 0, outcome.stderr || name)
  const told = JSON.parse(outcome.stdout) as Record<string, Place>
  return stages.map((stage) => {
    const own = Object.entries(told).filter(([key]) => key.startsWith(`${stage} `))
    const places = Object.fromEntries(own.map(([key, place]) => [key.slice(2), place])) as Places
    for (const [place, got] of Object.entries(places) as [string, Place][]) {
      const at = `${name}, stage ${stage}, ${place}`
      t.strictSame(got.rows, places.none.rows, at)
      t.strictSame(got.rest, places.none.rest, `${at}, resumed from the place before`)
      t.strictSame(got.probe, places.none.probe, `${at}, states by name`)
      t.strictSame(got.changed, places.none.changed, `${at}, states set by name`)
      t.strictSame(got.again, got.live, 'reloaded states are where they were')
      t.equal(got.visible, 0, 'a swap file has no name')
      t.equal(got.tensors, 0, 'all tensors are freed')
    }
    return places
  })
}
