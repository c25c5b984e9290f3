// A run that starts from a Hugging Face folder: what export wrote is where it begins.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { losses, type Outcome, Workspace } from '../helpers/program.js'

const ok = (t: Test, outcome: Outcome): Outcome => {
  t.equal(outcome.status, 0, outcome.stderr || 'done')
  return outcome
}
/** The evaluations in a metrics file. */
const evaluations = (space: Workspace, run: number): number[] =>
  readFileSync(space.path(`run-${run}.jsonl`), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { validationLoss?: number })
    .flatMap(({ validationLoss }) => (validationLoss === undefined ? [] : [validationLoss]))

const llama = {
  model_type: 'llama',
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_size: 32,
  intermediate_size: 48,
  max_position_embeddings: 16,
  vocab_size: 256,
}

for (const family of ['gpt2', 'llama']) {
  t.test(`${family}: train, export, train on: the first evaluation is the exported model's`, async (t) => {
    const space = new Workspace(t)
    const evaluated = { steps: 8, eval_interval: 8, eval_batches: 4, seed: 3 }
    const config = space.config({ train: evaluated, ...(family === 'llama' && { model: { config: llama } }) })
    const output = space.path('first')
    ok(t, await space.train(config, { output }))
    const [last] = evaluations(space, 1)
    const folder = space.path('exported')
    t.equal((await space.start(['export', output, folder]).done).status, 0)

    const model = { path: folder, weights: true }
    const still = { type: 'AdamW', params: { lr: 0 } }
    const once = { steps: 1, eval_interval: 1, eval_batches: 4, seed: 3 }
    const cases: [string, object, number][] = [
      ['one rank', {}, 1],
      ['two ranks, stage 1', { zero_optimization: { stage: 1 } }, 2],
      ['bf16, stage 1', { bf16: { enabled: true }, zero_optimization: { stage: 1 } }, 2],
    ]
    const first: number[] = []
    for (const [name, more, ranks] of cases) {
      const run = ok(t, await space.train({ ...config, model, optimizer: still, train: once, ...more }, { ranks }))
      const [loss] = evaluations(space, first.length + 2)
      first.push(losses(run)[0] as number)
      const gap = Math.abs((loss as number) - (last as number))
      t.ok(gap <= (name === 'bf16, stage 1' ? 2e-2 : ranks === 1 ? 0 : 1e-6), `${name}: ${loss} after ${last}`)
    }
    const fresh = ok(t, await space.train({ ...config, train: { ...once, steps: 1 } }))
    t.ok((first[0] as number) < (losses(fresh)[0] as number) - 0.2, `${first[0]}, from nothing ${losses(fresh)[0]}`)

    const again = space.path('again')
    t.equal((await space.start(['export', folder, again]).done).status, 0, 'what was exported can be exported')
    for (const name of ['model.safetensors', 'tokenizer.json']) {
      t.ok(readFileSync(join(folder, name)).equals(readFileSync(join(again, name))), `${name}: byte for byte`)
    }
    const text = async (from: string): Promise<string> => {
      const { done } = space.start(['generate', from, '--prompt', 'the ', '--tokens', '12', '--temperature', '0'])
      const { status, stdout, stderr } = await done
      t.equal(status, 0, stderr)
      return stdout
    }
    t.equal(await text(folder), await text(output), 'the exported folder generates the same text')
  })
}

t.test('a resumed run does not go back to the initial weights; a folder that does not fit ends with 1', async (t) => {
  const space = new Workspace(t)
  const config = space.config({ train: { steps: 4, seed: 3 } })
  ok(t, await space.train(config, { output: space.path('first') }))
  const folder = space.path('exported')
  t.equal((await space.start(['export', space.path('first'), folder]).done).status, 0)
  const from = { ...config, model: { path: folder, weights: true } }
  const whole = ok(t, await space.train({ ...from, train: { steps: 6, seed: 3 } }))
  const output = space.path('halves')
  ok(t, await space.train({ ...from, train: { steps: 3, seed: 3 } }, { output }))
  const rest = ok(t, await space.train({ ...from, train: { steps: 6, seed: 3 } }, { output, args: ['--resume'] }))
  t.strictSame(losses(rest), losses(whole).slice(3))

  const path = join(folder, 'config.json')
  t.ok(existsSync(path))
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), n_layer: 3 }))
  const wrong = await space.train(from, { ranks: 2 })
  t.equal(wrong.status, 1)
  t.match(wrong.stderr, /exported: .*missing: transformer\.h\.2\.ln_1\.weight/)
  t.notMatch(wrong.stderr, /^ +at /m, 'no stack')
  const none = await space.train({ ...config, model: { ...(config.model as object), weights: true } })
  t.equal(none.status, 2)
  t.match(none.stderr, /weights needs model\.path/)
  const both = { number_checkpoints: 2, granularity: 'selective' }
  const exclusive = await space.train({ ...config, activation_checkpointing: both })
  t.equal(exclusive.status, 2)
  t.match(exclusive.stderr, /number_checkpoints 2 and granularity "selective"/)
})

t.test('attention computed again gives the same bits', async (t) => {
  const space = new Workspace(t)
  const plain = ok(t, await space.train(space.config()))
  for (const wanted of [{ granularity: 'selective' }, { number_checkpoints: 1 }, { number_checkpoints: 2 }]) {
    const again = ok(t, await space.train(space.config({ activation_checkpointing: wanted })))
    t.strictSame(losses(again), losses(plain), JSON.stringify(wanted))
  }
})
