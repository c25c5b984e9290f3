// Mistakes of users: each ends with its status and one line that names the value and the cure.

import { rmSync } from 'node:fs'
import { createServer } from 'node:net'
import t from 'tap'
import { processesOf, Workspace } from '../helpers/program.js'

t.test('mistakes in the configuration exit with 2 before anything starts', async (t) => {
  const space = new Workspace(t)
  const config = space.config()
  const model = (config.model as { config: object }).config
  const cases: [string, object, RegExp][] = [
    ['unknown key', { zero_optimisation: {} }, /zero_optimisation.*zero_optimization/],
    ['stage 7', { zero_optimization: { stage: 7 } }, /stage is 7.*at most 3/],
    ['sum', { gradient_allreduce_op: 'sum', zero_optimization: { stage: 3 } }, /"sum" .*stage 3/],
    ['optimizer', { optimizer: { type: 'Adamw2' } }, /AdamW/],
    ['batch', { train_batch_size: 7, train_micro_batch_size_per_gpu: 2 }, /7/],
    ['no file', { data: { train: ['nowhere.txt'] } }, /nowhere\.txt/],
    ['empty text', { data: { train: [space.write('empty.txt', '')] } }, /empty\.txt/],
    ['short text', { data: { train: [space.write('short.txt', 'short')] } }, /too short|sequence_length|tokens/],
    ['heads', { model: { config: { ...model, n_head: 5 } } }, /n_head/],
    ['architecture', { model: { config: { ...model, model_type: 'gtp2' } } }, /gpt2/],
    ['vocabulary', { model: { config: { ...model, vocab_size: 16 } } }, /vocab_size/],
    ['rate', { optimizer: { type: 'AdamW', params: { lr: -1 } } }, /lr is -1/],
    ['mesh', { mesh: { tensor: 3 } }, /tensor 3/],
    ['precision', { bf16: { enabled: true }, fp16: { enabled: true } }, /bf16 and fp16/],
    ['context', { data: { train: [space.text()], sequence_length: 99 } }, /99.*16 positions/],
  ]
  for (const [name, wrong, pattern] of cases) {
    const output = space.path('output')
    const { status, stderr } = await space.train({ ...config, ...wrong }, { ranks: 2, output })
    t.equal(status, 2, `${name}: ${stderr}`)
    t.match(stderr, pattern, name)
    t.notMatch(stderr, /^ +at /m, `${name}: no stack`)
    // Tokens stay where the text was whole: the run with a mended configuration uses them.
    const useful = ['short text', 'vocabulary'].includes(name) ? /\.tokens$/ : /^$/
    const left = space.remains().filter((what) => !what.includes(output) || !useful.test(what))
    t.strictSame(left, [], `${name}: no process and no file is left`)
    rmSync(output, { recursive: true, force: true })
  }
})

t.test('mistakes on the command line', async (t) => {
  const space = new Workspace(t)
  const file = space.write('c.json', space.config())
  const cases: [string[], RegExp][] = [
    [['train', space.write('bad.json', '{"a": 1,,}')], /bad\.json:1:9/],
    [['train', 'none.json'], /none\.json/],
    [['train', file, '--nproc', '0'], /at least one rank/],
    [['train', file, '--nproc', 'two'], /whole number/],
    [['train', file, '--set', 'train.steps'], /path\.to\.key/],
    [['train', file, '--device', 'cuda'], /cuda/],
    [['generate', space.folder, '--prompt', 'x'], /checkpoint/],
    [['tarin'], /train/],
  ]
  for (const [args, pattern] of cases) {
    const { status, stderr } = await space.start(args).done
    t.ok(status === 2 || (args[0] === 'generate' && status === 1), `${args.join(' ')}: status ${status}`)
    t.match(stderr, pattern)
    t.notMatch(stderr, /^ +at /m, 'no stack')
  }
})

t.test('a loss that is no number ends the run and says where', async (t) => {
  const space = new Workspace(t)
  const { status, stderr } = await space.train(
    space.config({ optimizer: { type: 'AdamW', params: { lr: 1e20, eps: 1e-30 } }, gradient_clipping: 0 }),
    { ranks: 2, args: ['--steps', '60'] },
  )
  t.equal(status, 1, stderr)
  t.match(stderr, /zeroshard: rank \d: the loss of step \d+ is (NaN|Infinity)/)
  t.strictSame(processesOf(space.folder), [], 'no process is left')
})

t.test('a port in use, another secret, another world size', async (t) => {
  const space = new Workspace(t)
  const file = space.write('c.json', space.config({ train_batch_size: 12 }))
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const port = String((server.address() as { port: number }).port)
  const rank = (RANK: string, more: NodeJS.ProcessEnv = {}) =>
    space.start(['train', file, '--quiet'], {
      RANK,
      WORLD_SIZE: '2',
      MASTER_PORT: port,
      ZEROSHARD_TIMEOUT: '5',
      ...more,
    }).done
  const taken = await rank('0')
  t.equal(taken.status, 1)
  t.match(taken.stderr, /port is in use/)
  await new Promise((done) => server.close(done))
  const [zero, one] = await Promise.all([rank('0', { ZEROSHARD_SECRET: 'a' }), rank('1', { ZEROSHARD_SECRET: 'b' })])
  t.match(one.stderr, /ZEROSHARD_SECRET/)
  t.not(zero.status, 0, 'rank 0 does not wait for ever')
  const [, other] = await Promise.all([rank('0'), rank('1', { WORLD_SIZE: '3' })])
  t.match(other.stderr, /WORLD_SIZE is 3/)
  t.strictSame(processesOf(space.folder), [], 'no process is left')
})
