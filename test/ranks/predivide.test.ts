// prescale_gradients and gradient_predivide_factor, with real processes: where gradients travel in f16, what is divided
// before the sum decides what overflows in it and what vanishes.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { Workspace } from '../helpers/program.js'

const smallest = 2 ** -24
const large = 60_000

t.test('two ranks: what is left of 60000 and of the smallest number', async (t) => {
  const space = new Workspace(t)
  for (const [more, expected] of [
    // An average that is exact until its end.
    [{}, [large, smallest]],
    // Half of each: no overflow, but half of the smallest number is none.
    [{ prescale_gradients: true }, [large, 0]],
    [{ gradient_predivide_factor: 2 }, [large, 0]],
    // 40000 + 40000 is too much, the smallest becomes 0.67 of itself, which is itself.
    [{ gradient_predivide_factor: 1.5 }, [Number.POSITIVE_INFINITY, 2 * smallest]],
    [{ gradient_predivide_factor: 0.5 }, [Number.POSITIVE_INFINITY, smallest]],
    // In f16 gradients, where nothing is cast.
    [{ prescale_gradients: true, data_types: { grad_accum_dtype: 'fp16' } }, [large, 0]],
    // Without an average, or in f32, nothing is divided.
    [{ prescale_gradients: true, gradient_allreduce_op: 'sum' }, [Number.POSITIVE_INFINITY, 2 * smallest]],
    [{ prescale_gradients: true, communication_data_type: 'fp32' }, [large, smallest]],
  ] as [Record<string, unknown>, number[]][]) {
    for (const stage of more.gradient_allreduce_op ? [1] : 'data_types' in more ? [0, 1, 2, 3] : [0, 2]) {
      const args = [String(stage), JSON.stringify(more), String(large), String(smallest)]
      const outcome = await space.launch('predivide.mjs', args, 2)
      t.equal(outcome.status, 0, outcome.stderr)
      t.strictSame(JSON.parse(outcome.stdout), { told: expected.map(String), tensors: 0 }, args.join(' '))
    }
  }
})

t.test('dump_state tells the resolved configuration and the units, once; jsonl_monitor has every step', async (t) => {
  const space = new Workspace(t)
  const config = space.config({
    dump_state: true,
    train: { steps: 3, seed: 3 },
    data_types: { grad_accum_dtype: 'bf16' },
    zero_optimization: { stage: 2, offload_optimizer: { device: 'cpu' } },
    jsonl_monitor: { enabled: true, output_path: space.path('events'), job_name: 'small' },
  })
  const run = await space.train(config, { ranks: 2 })
  t.equal(run.status, 0, run.stderr)
  t.equal(run.stderr.split('resolved configuration:').length, 2, 'once')
  t.match(run.stderr, /"grad_accum_dtype": "bf16"/)
  t.match(run.stderr, /state of rank 0 of 2:/)
  t.match(run.stderr, /ZeRO stage 2, AdamW, parameters f32, gradients bf16, sent as bf16/)
  t.match(
    run.stderr,
    /h\.1: 12 parameters, \d+ elements, \[0, \d+\) here, gradients sharded, optimizer sharded, optimizer on host/,
  )
  const lines = readFileSync(space.path('events/small.jsonl'), 'utf8').trimEnd().split('\n')
  const events = lines.map((line) => JSON.parse(line) as Record<string, number>)
  t.strictSame(
    events.map((event) => [event.step, event['Train/Samples/train_loss'], event['Train/Samples/lr']]),
    run.steps.map(({ loss }, index) => [8 * (index + 1), loss, 3e-3]),
  )
})
