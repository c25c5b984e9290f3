// From the start of the process to the end of the first step of GPT-2 124M, as a user's script: plain Node, the package.

import { join } from 'node:path'
import { type Benchmark, capture, median, root } from '../harness.js'

interface Times {
  loaded: number
  ready: number
  first: number
}

/** Seconds since this call, which starts the process. */
async function start(dtype: string): Promise<Times> {
  const begun = Date.now()
  const text = await capture(process.execPath, [join(root, 'bench/step/first-step.mjs'), dtype])
  const at = JSON.parse(text) as Times
  return { loaded: at.loaded - begun, ready: at.ready - begun, first: at.first - begun }
}

export default {
  title: 'Start of GPT-2 124M: process start to the end of the first step (4 samples of 64 tokens)',
  async run() {
    const rows = []
    for (const dtype of ['f32', 'bf16']) {
      const runs = [await start(dtype), await start(dtype), await start(dtype)]
      const of = (key: keyof Times): number => median(runs.map((run) => run[key])) / 1000
      const note = `loaded ${of('loaded').toFixed(2)} s, engine made ${of('ready').toFixed(2)} s`
      rows.push({ name: dtype, value: of('first'), unit: 's', target: '<= 3' as const, note })
    }
    return rows
  },
} satisfies Benchmark
