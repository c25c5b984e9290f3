// Parameter groups, how a range is cut among ranks, and the optimizer section of a configuration.

import t from 'tap'
import { resolveConfig } from '../../lib/config/index.js'
import { crossingsOf, cutOf, cutRange, holdingsOf } from '../../lib/optim/cut.js'
import { assignGroups, type Groupable, lrScaleOf } from '../../lib/optim/groups.js'
import { isHiddenMatrix } from '../../lib/optim/muon.js'
import { makeOptimizer, type OptimizerPart } from '../../lib/optim/optimizer.js'
import { makeSchedule } from '../../lib/optim/schedules.js'
import { fc } from '../helpers/properties.js'

const parameter = (name: string, shape: number[], trainable = true): Groupable => ({ name, shape, trainable })
const model = [
  parameter('transformer.wte.weight', [10, 4]),
  parameter('transformer.h.0.mlp.c_fc.weight', [4, 8]),
  parameter('transformer.h.0.mlp.c_fc.bias', [8]),
  parameter('transformer.ln_f.weight', [4], false),
]

t.test('a parameter belongs to the first group that matches, by name or function; the rest to none', async (t) => {
  const groups = [{ match: /c_fc\.weight/ }, { match: (_: string, shape: readonly number[]) => shape.length === 2 }]
  t.strictSame(assignGroups(model, groups), [1, 0, -1, -1])
  t.strictSame(assignGroups(model, []), [-1, -1, -1, -1])
  t.strictSame(assignGroups(model, [{ match: /wte/g }]), [0, -1, -1, -1])
  t.strictSame(assignGroups(model, [{ match: /wte/g }]), [0, -1, -1, -1], 'a global pattern keeps no state')
})

t.test('a group that matches nothing, a frozen parameter, or only what others have is an error', async (t) => {
  const wrong: [Parameters<typeof assignGroups>[1], RegExp][] = [
    [[{ match: /h\.0\.mlp\.c_fx\.weight/ }], /parameter group 0 .* matches no parameter; did you mean transformer.h.0/],
    [
      [{ match: () => false, name: 'heads' }],
      /parameter group 'heads' matches no parameter; there are 4, as transformer.wte/,
    ],
    [[{ match: /weight/ }], /matches 'transformer.ln_f.weight', which is frozen/],
    [[{ match: /wte/ }, { match: /wte/ }], /parameter group 1 .* only what earlier groups match/],
    [[{ match: /wte/, lr: -1 }], /lr is -1; it must be a number, at least 0/],
    [[{ match: /wte/, weightDecay: Number.NaN }], /weightDecay is NaN/],
  ]
  for (const [groups, message] of wrong) t.throws(() => assignGroups(model, groups), { code: 'CONFIG', message })
  t.throws(() => assignGroups([], [{ match: /x/ }]), { message: /the model has none/ })
})

t.test("a group's rate is a multiple of the optimizer's, which therefore is not 0", async (t) => {
  t.equal(lrScaleOf({ match: /x/, lr: 0.5 }, 0, 0.25), 2)
  t.equal(lrScaleOf({ match: /x/, lr: 0 }, 0, 0.25), 0)
  t.equal(lrScaleOf({ match: /x/ }, 0, 0.25), 1)
  t.equal(lrScaleOf({ match: /x/ }, 0, 0), 1, 'what a schedule says')
  t.equal(lrScaleOf({ match: /x/, lr: 0 }, 0, 0), 0, 'whatever a schedule says')
  t.throws(() => lrScaleOf({ match: /head/, lr: 0.5 }, 2, 0), {
    code: 'CONFIG',
    message: /parameter group 2 .*lr 0.5 is no multiple of optimizer.params.lr, which is 0.*set that to 0.5/,
  })
  const muon = (params: Record<string, number>) => () => makeOptimizer({ type: 'Muon', params })
  t.throws(muon({ lr: 0, muon_lr: 0.02 }), { code: 'CONFIG', message: /muon_lr 0.02 is no multiple.*set lr to 0.02/ })
  t.throws(muon({ lr: 0, adam_lr: 3e-4 }), { code: 'CONFIG', message: /adam_lr 0.0003 is no multiple/ })
  t.doesNotThrow(muon({ lr: 0, muon_lr: 0, adam_lr: 0 }))
  t.doesNotThrow(muon({ lr: 0.02, muon_lr: 0.02, adam_lr: 0 }))
})

t.test('Muon takes hidden matrices', async (t) => {
  const taken = model.filter(({ name, shape }) => isHiddenMatrix(name, shape)).map(({ name }) => name)
  t.strictSame(taken, ['transformer.h.0.mlp.c_fc.weight'])
  for (const name of ['model.embed_tokens.weight', 'lm_head.weight', 'wpe.weight'])
    t.notOk(isHiddenMatrix(name, [4, 4]))
  t.ok(isHiddenMatrix('model.layers.0.mlp.experts.up', [8, 4, 4]))
})

t.test('any cut: the parts are the range, and pieces of a parameter are all of it', async () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(
      sizes,
      fc.integer({ min: 1, max: 5 }),
      fc.nat({ max: 20 }),
      fc.nat({ max: 9 }),
      (list, ranks, begin, spare) => {
        let end = begin
        const parameters = list.map((size, i) => ({ name: `p${i}`, shape: [size], offset: (end += size) - size }))
        const shard = Math.ceil((end + spare) / ranks)
        const cut = cutRange(parameters, [begin, end], shard, ranks)
        if (cut.counts.reduce((sum, count) => sum + count, 0) !== end - begin) return false
        const whole = parameters.every(({ offset, shape: [size] }) => {
          const holdings = holdingsOf(cut, offset - begin, offset - begin + (size as number))
          let next = 0
          return (
            holdings.every(({ rank, start, count, offset: at }) => {
              const inUnit = Math.max(rank * shard, begin) + at
              const right = start === next && inUnit === offset + start && inUnit + count <= (rank + 1) * shard
              next = start + count
              return right && count > 0
            }) && next === size
          )
        })
        return whole && crossingsOf(cut).length <= ranks - 1
      },
    ),
  )
})

t.test('a part that does not fit its cut is an error before anything is sent', async (t) => {
  const part = { param: { count: 5 }, pieces: [], group: { rank: 1, size: 2 } } as unknown as OptimizerPart
  t.throws(() => cutOf('lamb', part), { code: 'INTERNAL', message: /5 elements on rank 1 of 2 with no cut/ })
  t.throws(() => cutOf('lamb', { ...part, cut: { counts: [5, 4], parameters: [] } }), { message: /\[5, 4\]/ })
})

const resolve = (optimizer: unknown, scheduler?: unknown): ReturnType<typeof resolveConfig> =>
  resolveConfig(
    { train_batch_size: 1, optimizer, ...(scheduler ? { scheduler } : {}) },
    { source: 'c.json', directory: '/', worldSize: 1 },
  )

t.test('the optimizer section: each type has its parameters and defaults', async (t) => {
  const expected: Record<string, Record<string, unknown>> = {
    AdamW: { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0, weight_decay_on: 'all', bias_correction: true },
    Adam: { lr: 1e-3, adam_w_mode: true },
    Lamb: { lr: 1e-3, max_coeff: 10, min_coeff: 0.01, eps_inside_sqrt: false },
    Lion: { lr: 1e-3, betas: [0.9, 0.99] },
    Adagrad: { lr: 1e-2, eps: 1e-10, lr_decay: 0 },
    SGD: { lr: 1e-3, momentum: 0, dampening: 0, nesterov: false },
    Muon: { lr: 0.02, muon_lr: 0.02, adam_lr: 3e-4, momentum: 0.95, ns_steps: 5, betas: [0.9, 0.95], eps: 1e-10 },
  }
  for (const [type, params] of Object.entries(expected)) {
    const { optimizer } = resolve({ type: type.toLowerCase() })
    t.equal(optimizer.type, type)
    t.match(optimizer.params, params)
    t.equal(makeOptimizer(optimizer).type, type, 'and it can be made')
  }
  t.match(resolve({ type: 'Muon', params: { lr: 0.01 } }).optimizer.params, { lr: 0.01, muon_lr: 0.01, adam_lr: 0.01 })
  t.match(resolve({ type: 'Muon', params: { muon_lr: 0.01 } }).optimizer.params, {
    lr: 0.02,
    muon_lr: 0.01,
    adam_lr: 3e-4,
  })
  t.equal(resolve(undefined).optimizer.type, 'AdamW')
})

t.test('the optimizer section: what is refused, and why', async (t) => {
  const wrong: [optimizer: unknown, message: RegExp][] = [
    [{ type: 'OneBitAdam' }, /optimizer.type "OneBitAdam" is not served: .* use AdamW/],
    [{ type: 'zerooneadam' }, /"ZeroOneAdam" is not served/],
    [{ type: 'OneBitLamb' }, /use Lamb/],
    [{ type: 'MuAdam' }, /use Adam with a learning rate/],
    [{ type: 'MuAdamW' }, /use AdamW with a learning rate/],
    [{ type: 'MuSGD' }, /use SGD with/],
    [
      { type: 'AdamX' },
      /optimizer.type is "AdamX"; it must be "AdamW", "Adam", "Lamb", "Lion", "Adagrad", "SGD", "Muon"; did/,
    ],
    [
      { type: 'SGD', params: { momentun: 0.9 } },
      /unknown key optimizer.params.momentun; did you mean optimizer.params.momentum\?/,
    ],
    [{ type: 'Lion', params: { eps: 1e-8 } }, /unknown key optimizer.params.eps/],
    [{ type: 'AdamW', params: { adam_w_mode: false } }, /use type Adam/],
    [{ type: 'AdamW', params: { max_grad_norm: 1 } }, /use gradient_clipping/],
    [{ type: 'Lamb', params: { max_grad_norm: 1 } }, /use gradient_clipping/],
    [{ type: 'Adagrad', params: { initial_accumulator_value: 0.1 } }, /not served/],
    [{ type: 'Muon', params: { per_head_muon: true } }, /not served/],
    [{ type: 'SGD', params: { momentum: 1 } }, /momentum is 1; it must be/],
    [{ type: 'Lamb', params: { betas: [0.9] } }, /betas/],
  ]
  for (const [optimizer, message] of wrong) t.throws(() => resolve(optimizer), { code: 'CONFIG', message })
})

t.test('the optimizer section: what changes nothing is said', async (t) => {
  t.match(resolve({ type: 'Adam', params: { torch_adam: true } }).hints, [/optimizer.params.torch_adam: .*fused/])
  t.match(resolve({ type: 'Muon', params: { ns_method: 'standard' } }).hints, [/ns_method/])
})

t.test('the scheduler section: OneCycle and LRRangeTest', async (t) => {
  const params = { cycle_min_lr: 0.1, cycle_max_lr: 0.5, cycle_first_step_size: 4 }
  const adam = resolve({ type: 'AdamW' }, { type: 'onecycle', params })
  const schedule = makeSchedule(adam.scheduler, 1)
  t.equal(schedule(4), 0.5)
  t.ok(schedule.momentum)
  const sgd = resolve({ type: 'SGD' }, { type: 'OneCycle', params })
  t.equal(makeSchedule(sgd.scheduler, 1).momentum, undefined, 'SGD has no betas')
  t.match(sgd.hints, [/cycle_momentum: SGD has no betas/])
  t.throws(() => makeSchedule(resolve({}, { type: 'OneCycle', params: { cycle_max_lr: 1 } }).scheduler, 1), {
    code: 'CONFIG',
    message: /cycle_min_lr is missing/,
  })
  t.throws(() => resolve({}, { type: 'OneCycle', params: { ...params, cycle_first_stepsize: 3 } }), {
    message: /did you mean scheduler.params.cycle_first_step_size\?/,
  })
  const range = resolve({}, { type: 'LRRangeTest', params: { lr_range_test_step_size: 10 } })
  t.equal(makeSchedule(range.scheduler, 1)(10), 0.002)
})
