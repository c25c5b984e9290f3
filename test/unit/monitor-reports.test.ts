// Timers, the table of collectives, tables, FLOPs of known models.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { busFactor, CommsLogger, unknownCollectives } from '../../lib/monitor/comms.js'
import { mfu, modelFlops } from '../../lib/monitor/flops.js'
import { bytesText, memoryTable, table, withPrefix } from '../../lib/monitor/table.js'
import { Timers, timersLine } from '../../lib/monitor/timers.js'
import { recordsOf } from '../helpers/trace.js'

t.test('timers throw when started twice or stopped without a start', async (t) => {
  const timers = new Timers()
  timers.start('a')
  t.throws(() => timers.start('a'), { code: 'ARGUMENT', message: /'a' runs already/ })
  t.throws(() => timers.stop('b'), { code: 'ARGUMENT', message: /'b' does not run/ })
})

t.test('timers add up, synchronise where asked, and start again', async (t) => {
  let calls = 0
  const timers = new Timers(() => calls++)
  timers.start('wait')
  await sleep(30)
  const waited = timers.stop('wait', { synchronize: true })
  t.ok(waited >= 29 && waited < 2000, `${waited} ms`)
  t.equal(calls, 1)
  timers.start('work', { synchronize: true })
  timers.stop('work')
  t.equal(calls, 2)
  for (const time of [1, 2, 6]) timers.add('given', time)
  t.strictSame(timers.summary().given, { count: 3, total: 9, mean: 3, min: 1, max: 6 })
  t.equal(timersLine({ given: timers.summary().given as never }, 3), 'time (ms) | given: 3.00')
  timers.summary({ reset: true })
  t.strictSame(timers.summary(), {})
})

t.test('bandwidth by kind and ranks, as nccl-tests define it', async (t) => {
  t.strictSame(
    (['allReduce', 'allGather', 'reduceScatter', 'allToAll', 'broadcast', 'send'] as const).map((kind) =>
      busFactor(kind, 4),
    ),
    [1.5, 0.75, 0.75, 0.75, 1, 1],
  )
  const logger = new CommsLogger()
  logger.add(
    recordsOf([
      { start: 0, end: 2e6, kind: 'allReduce', bytes: 1e6, ranks: 4 },
      { start: 2e6, end: 4e6, kind: 'allReduce', bytes: 1e6, ranks: 4 },
      { start: 5e6, end: 6e6, kind: 'allReduce', bytes: 1e6, ranks: 2 },
      { start: 0, end: 3e6, kind: 'allGather', bytes: 4e3, ranks: 2 },
      { start: 0, end: 9e6, name: 'matmul' },
    ]),
  )
  t.match(logger.summary(), [
    { name: 'allGather', bytes: 4e3, count: 1, total: 3, latency: 3 },
    { name: 'allReduce', ranks: 2, count: 1, total: 1, algbw: 1, busbw: 1 },
    { name: 'allReduce', ranks: 4, count: 2, total: 4, latency: 2, algbw: 0.5, busbw: 0.75 },
  ])
  t.match(logger.logSummary(), /collective +size +ranks +count/)
  t.equal(logger.logSummary().split('\n').length, 5)
  t.equal(new CommsLogger().logSummary(), 'no collectives ran')
})

t.test("comms_logger's keys: chosen collectives, each told, with its phase", async (t) => {
  const printed: string[] = []
  const config = { prof_all: false, prof_ops: ['all_gather_into_tensor'], verbose: true, debug: true }
  const logger = new CommsLogger(config, (text) => printed.push(text))
  logger.add(
    recordsOf([
      { start: 0, end: 1e6, kind: 'allGather', bytes: 2048 },
      { start: 0, end: 1e6, kind: 'allReduce', bytes: 2048 },
      { start: 0, end: 1e6, kind: 'allGather', bytes: 2048 },
    ]),
    (index) => (index === 0 ? 'step' : undefined),
  )
  t.strictSame(
    logger.summary().map(({ name }) => name),
    ['allGather [elsewhere]', 'allGather [step]'],
  )
  t.match(printed, [/^comm op: allGather \[step\] \| time \(ms\): 1.000 \| msg size: 2 KiB/, /elsewhere/])
  t.strictSame(unknownCollectives(['all_reduce', 'allgather', 'gossip', 'reduce_scatter_tensor']), ['gossip'])
})

t.test('tables and units', async (t) => {
  t.equal(
    table(
      ['name', 'n'],
      [
        ['a', '1'],
        ['long', '200'],
      ],
    ),
    'name    n\n----  ---\na       1\nlong  200',
  )
  t.strictSame(
    [0, 12, 999.5, 1234567, 5e21].map((value) => withPrefix(value)),
    ['0', '12', '999.50', '1.23 M', '5000.00 E'],
  )
  t.strictSame([0, 1023, 1024, 1.5 * 2 ** 30].map(bytesText), ['0 B', '1023 B', '1 KiB', '1.50 GiB'])
  t.match(memoryTable({ parameters: 1024, total: 2048 }, { parameters: 4096, total: 4097 }), /parameters +1 KiB +4 KiB/)
})

t.test('FLOPs of GPT-2 124M, Llama 2 7B and Mixtral 8x7B', async (t) => {
  const gpt2 = modelFlops({ vocab_size: 50257, n_embd: 768, n_layer: 12, n_head: 12, n_inner: null }, 1024)
  t.equal(gpt2?.matmulParameters, 12 * 12 * 768 ** 2 + 50257 * 768)
  t.equal(gpt2?.training, 6 * (gpt2?.matmulParameters as number) + 12 * 12 * 768 * 1024, '6N + 12·L·E·T')
  const llama = {
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: null,
    head_dim: null,
  }
  t.equal(modelFlops(llama, 4096)?.matmulParameters, 6738415616 - 32000 * 4096 - 65 * 4096, 'all but embedding, norms')
  const mixtral = {
    ...llama,
    intermediate_size: 14336,
    num_key_value_heads: 8,
    num_local_experts: 8,
    num_experts_per_tok: 2,
  }
  const active = modelFlops(mixtral, 1)?.matmulParameters as number
  t.ok(Math.abs(active - 12.7e9) < 0.1e9, `${active} active parameters of 12.9e9, less the embedding's 0.13e9`)
  t.equal(modelFlops(llama, 4095, { causal: true })?.attention, 4 * 32 * 4096 * 2048)
  t.equal(modelFlops({ model_type: 'mamba' }, 8), undefined)
})

t.test('MFU: what the model needs, of what all ranks can', async (t) => {
  t.equal(mfu({ flopsPerToken: 1e9, tokensPerSecond: 100, peak: 1e11, ranks: 2 }), 0.5)
})
