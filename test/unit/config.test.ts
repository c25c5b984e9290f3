// What a configuration may say: DeepSpeed's JSON read as DeepSpeed does, mistakes named with their cure.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ZeroshardError } from '../../lib/binding/errors.js'
import {
  allPaths,
  type Config,
  parseConfigText,
  type Read,
  readConfigSource,
  resolveConfig,
  schema,
} from '../../lib/config/index.js'
import { notYet } from '../../lib/config/not-yet.js'
import { readSection } from '../../lib/config/read.js'
import { rulesOf } from '../../lib/config/schema.js'
import { configDocs, docsPath } from '../../scripts/config-docs.js'

const micro = { train_micro_batch_size_per_gpu: 2 }

function resolve(more: object, worldSize = 4, batch: object = micro): Config {
  return resolveConfig({ ...batch, ...more }, { source: 'c.json', directory: '/work', worldSize })
}

/** What the schema makes of it, whether or not the engine follows yet. */
function read(raw: object): Read & { hints: string[] } {
  const hints = new Map<string, string[]>()
  const values = readSection({ source: 'c.json', hints, paths: allPaths }, schema, { ...micro, ...raw }, '')
  return { ...values, hints: [...hints].map(([text, paths]) => `${paths}: ${text}`) }
}

function refusal(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    if (error instanceof ZeroshardError && error.code === 'CONFIG') return error.message
    throw error
  }
  return 'accepted'
}

t.test('two of the three batch sizes give the third, one alone means no accumulation', async (t) => {
  const cases: [object, number[]][] = [
    [{ train_micro_batch_size_per_gpu: 3 }, [12, 3, 1]],
    [{ train_batch_size: 24 }, [24, 6, 1]],
    [{ train_batch_size: 24, train_micro_batch_size_per_gpu: 3 }, [24, 3, 2]],
    [{ train_batch_size: 24, gradient_accumulation_steps: 3 }, [24, 2, 3]],
    [{ train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 5 }, [40, 2, 5]],
    [{ train_batch_size: 40, train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 5 }, [40, 2, 5]],
    [{ train_batch_size: 4e1, train_micro_batch_size_per_gpu: null }, [40, 10, 1]],
  ]
  for (const [batch, expected] of cases) {
    const config = resolve({}, 4, batch)
    const { train_batch_size, train_micro_batch_size_per_gpu, gradient_accumulation_steps } = config
    t.strictSame([train_batch_size, train_micro_batch_size_per_gpu, gradient_accumulation_steps], expected)
  }
})

t.test('refuses batch sizes that do not fit, with the numbers', async (t) => {
  const cases: [object, RegExp][] = [
    [{}, /give train_micro_batch_size_per_gpu or train_batch_size/],
    [{ gradient_accumulation_steps: 4 }, /gradient_accumulation_steps alone/],
    [{ train_batch_size: 7 }, /train_batch_size 7 is not divisible by 4 data-parallel ranks/],
    [{ train_batch_size: 24, train_micro_batch_size_per_gpu: 5 }, /24.*5 x 4 data-parallel ranks = 20/],
    [{ train_batch_size: 24, gradient_accumulation_steps: 4 }, /24.*4 x 4 data-parallel ranks = 16/],
    [{ train_batch_size: 8, train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 2 }, /8 is not.*= 16/],
    [{ train_batch_size: 0 }, /train_batch_size is 0; it must be an integer at least 1/],
    [{ train_micro_batch_size_per_gpu: 1.5 }, /is 1.5; it must be an integer/],
    [{ train_micro_batch_size_per_gpu: 2 ** 52 }, /lower it/],
  ]
  for (const [batch, pattern] of cases)
    t.match(
      refusal(() => resolve({}, 4, batch)),
      pattern,
    )
})

t.test('takes an object, a file, and urlsafe base64, with comments and trailing commas', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-config-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const text = `\uFEFF# for DeepSpeed, HJSON
    { // a line
      "train_micro_batch_size_per_gpu": 2e0, /* a
      block with "quotes # and // in it" */
      "train": { "output": "a#b//c/*d", }, # the end
    }`
  const path = join(folder, 'ds.json')
  writeFileSync(path, text)
  const expected = { train_micro_batch_size_per_gpu: 2, train: { output: 'a#b//c/*d' } }
  t.strictSame(parseConfigText(text, 'x'), expected)
  const file = readConfigSource(path)
  t.strictSame([file.raw, file.directory, file.source], [expected, folder, path])
  t.equal(resolveConfig(file.raw, { ...file, worldSize: 1 }).train.output, join(folder, 'a#b//c/*d'))
  const encoded = Buffer.from(JSON.stringify({ ...micro, text: '??>>~~' })).toString('base64url')
  t.match(encoded, /[-_]/, 'the alphabet matters here')
  t.strictSame(readConfigSource(encoded).raw, { ...micro, text: '??>>~~' })
  t.strictSame(readConfigSource(micro).raw, micro)
  for (const wrong of [join(folder, 'none.json'), folder, 'bm8ganNvbg', '', 'a'.repeat(100_000), 'a\0b'])
    t.match(
      refusal(() => readConfigSource(wrong)),
      /is no file.*base64/,
    )
})

t.test('names file, line and column of what is no JSON, and the path of a key given twice', async (t) => {
  const cases: [string, RegExp][] = [
    ['{\n  "a": 1,,\n}', /^c\.json:2:10: not valid JSON/],
    ['{"a": 1', /^c\.json:1:8: not valid JSON: close brace/],
    ['', /^c\.json:1:1: not valid JSON/],
    ['{"zero_optimization": {\n "stage": 1,\n "stage": 2}}', /^c\.json:3:2: zero_optimization\.stage is given twice/],
    ['{"mesh": {}, "mesh": {}}', /mesh is given twice/],
    ['{"a": NaN}', /not valid JSON/],
    ['['.repeat(100_000), /more than 64 brackets/],
    [`{"a":${'{"a":'.repeat(100_000)}`, /more than 64 brackets/],
  ]
  for (const [text, pattern] of cases)
    t.match(
      refusal(() => parseConfigText(text, 'c.json')),
      pattern,
    )
})

t.test('an unknown key is named with its path and the nearest key, here or where it belongs', async (t) => {
  const cases: [object, RegExp][] = [
    [{ zero_optimisation: {} }, /unknown key zero_optimisation; did you mean zero_optimization\?/],
    [{ zero_optimization: { stagee: 1 } }, /zero_optimization\.stagee; did you mean zero_optimization\.stage\?/],
    [{ stage: 1 }, /unknown key stage; did you mean zero_optimization\.stage\?/],
    [{ lr: 1 }, /did you mean optimizer\.params\.lr\?/],
    [{ optimizer: { gradient_clipping: 1 } }, /did you mean gradient_clipping\?/],
    [{ mesh: { data: 4 } }, /unknown key mesh\.data/],
    [{ mesh: { qwertyuiop: 4 } }, /known here: pipeline, tensor, context, expert/],
    [{ zero_optimization: { grad_hooks: true } }, /unknown key zero_optimization\.grad_hooks/],
    [{ autotuning: { enabld: true } }, /autotuning\.enabld; did you mean autotuning\.enabled\?/],
    [JSON.parse('{"__proto__": {"train_batch_size": 3}}'), /key __proto__/],
    [{ model: { config: JSON.parse('{"a": {"__proto__": {}}}') } }, /model\.config\.a has a key __proto__/],
    [{ constructor: 1 }, /unknown key constructor/],
    [{ toString: 1 }, /unknown key toString/],
  ]
  for (const [raw, pattern] of cases)
    t.match(
      refusal(() => resolve(raw)),
      pattern,
    )
})

t.test('a value that does not fit is shown with what is allowed', async (t) => {
  const cases: [object, RegExp][] = [
    [{ zero_optimization: { stage: 4 } }, /zero_optimization\.stage is 4; it must be an integer.*at most 3/],
    [{ zero_optimization: { stage: true } }, /stage is true/],
    [{ zero_optimization: [] }, /zero_optimization is \[\]; it must be an object/],
    [{ optimizer: { type: 'Adamw2' } }, /optimizer\.type is "Adamw2".*did you mean AdamW\?/],
    [{ optimizer: { params: { betas: [0.9] } } }, /betas is \[0\.9\]; it must be a list of 2/],
    [{ optimizer: { params: { betas: [0.9, 1] } } }, /less than 1/],
    [{ gradient_clipping: -1 }, /gradient_clipping is -1; it must be a number at least 0/],
    [{ gradient_clipping: Number.NaN }, /gradient_clipping is NaN; it must be a finite number/],
    [{ gradient_clipping: Infinity }, /is Infinity/],
    [{ train: { steps: 1e300 } }, /train\.steps is 1e\+300; it must be an integer/],
    [{ train: { output: 'a\0b' } }, /train\.output/],
    [{ train: { output: 'x'.repeat(1e6).slice(0, -1), steps: 'y'.repeat(1e6) } }, /^.{20,400}$/],
    [{ bf16: { enabled: 'true' } }, /bf16\.enabled is "true"; it must be true or false/],
    [{ data_types: { grad_accum_dtype: 'int8' } }, /"fp32", "bf16" or "fp16"/],
    [{ pipeline: { partition: 'type:(' } }, /pipeline\.partition is "type:\("/],
    [{ train: { steps: () => 1 } }, /train\.steps is a function/],
    [{ train: { steps: 5n } }, /train\.steps is a bigint/],
    [{ train: new Map() }, /train is .* of class Map/],
  ]
  for (const [raw, pattern] of cases)
    t.match(
      refusal(() => resolve(raw)),
      pattern,
    )
  const cycle: Record<string, unknown> = {}
  cycle.model = { config: cycle }
  t.match(
    refusal(() => resolve(cycle)),
    /contains itself/,
  )
})

t.test('keys that would change a result are refused with what to use', async (t) => {
  const cases: [object, RegExp][] = [
    [{ optimizer: { params: { max_grad_norm: 1 } } }, /max_grad_norm 1 is not served: use gradient_clipping/],
    [{ wandb: { enabled: true, project: 'p' } }, /wandb is not served: .*tensorboard or csv_monitor/],
    [{ comet: { enabled: true } }, /comet is not served: .*tensorboard or csv_monitor/],
    [{ amp: { enabled: true } }, /amp is not served: .*bf16/],
    [{ torch_autocast: { enabled: true } }, /torch_autocast is not served/],
    [{ zero_optimization: { zero_quantized_weights: true } }, /ZeRO\+\+/],
    [{ zero_optimization: { mics_shard_size: 8 } }, /MiCS/],
    [{ zero_optimization: { zenflow: { topk_ratio: 0.2 } } }, /ZenFlow/],
    [{ zero_optimization: { legacy_stage1: true } }, /legacy_stage1/],
    [{ zero_optimization: { stage: 1, offload_optimizer: { device: 'cpu', super_offload: true } } }, /super_offload/],
    [{ fp16: { fp16_master_weights_and_grads: true } }, /master weights are f32/],
    [{ bf16: { check_grad_overflow: false } }, /check_grad_overflow/],
    [{ sparse_attention: { mode: 'fixed' } }, /sparse_attention is not served/],
    [{ curriculum_learning: { enabled: true } }, /curriculum_learning is not served/],
    [{ managed_gradient_accumulation: false }, /managed_gradient_accumulation/],
  ]
  for (const [raw, pattern] of cases)
    t.match(
      refusal(() => resolve(raw)),
      pattern,
    )
  const off = { wandb: { enabled: false, project: 'p' }, amp: { enabled: false, opt_level: 'O1' }, autotuning: {} }
  t.strictSame(resolve(off).hints, [], 'asking for nothing says nothing')
})

t.test('keys between themselves', async (t) => {
  const cases: [object, RegExp][] = [
    [{ bf16: { enabled: true }, fp16: { enabled: true } }, /bf16 and fp16 are both enabled/],
    [{ bfloat16: { enabled: true }, fp16: { enabled: true } }, /bf16 and fp16 are both enabled/],
    [{ gradient_allreduce_op: 'SUM', zero_optimization: { stage: 3 } }, /"sum" is not possible .*stage 3/],
    [{ zero_optimization: { stage: 2, offload_param: { device: 'cpu' } } }, /offload_param.* needs stage 3, not 2/],
    [{ zero_optimization: { stage: 3, offload_param: { device: 'nvme' } } }, /offload_param\.nvme_path is missing/],
    [{ mesh: { tensor: 2 }, tensor_parallel: { autotp_size: 4 } }, /mesh\.tensor 2 and .*autotp_size 4 disagree/],
    [{ mesh: { context: 2 }, sequence_parallel_size: 4 }, /disagree/],
    [{ mesh: { tensor: 3 } }, /mesh tensor 3 needs a multiple of 3 ranks; there are 4 ranks/],
    [{ mesh: { tensor: 2, expert: 4 } }, /mesh\.expert 4 must divide the 2 data-parallel ranks/],
    [{ data_parallel_size: 2 }, /data_parallel_size is 2, but 4 ranks and the mesh leave 4/],
    [{ sequence_parallel_size: 2, context_parallel: { type: 'ring' } }, /Ulysses/],
    [{ scheduler: { params: { warmup_num_steps: 5 } } }, /scheduler\.type is missing/],
    [{ pipeline: { schedule: 'zb-v', chunks: 3 } }, /chunks 3 does not go/],
    [{ pipeline: { schedule: 'interleaved', chunks: 1 } }, /chunks 1 does not go/],
    [{ pipeline: { chunks: 2 } }, /chunks 2 does not go with pipeline\.schedule "1f1b"/],
    [{ model: { config: {}, path: '/m' } }, /model\.config and model\.path/],
    [{ model: { path: '/nowhere' } }, /there is no \/nowhere\/config\.json/],
    [{ model: { config: 'gpt2' } }, /model\.config must be an object/],
  ]
  for (const [raw, pattern] of cases)
    t.match(
      refusal(() => resolve(raw)),
      pattern,
    )
})

t.test("aliases and deprecated keys mean today's keys; an old and a new name together are an error", async (t) => {
  const zero = (raw: object) => read({ zero_optimization: raw })
  t.equal(zero({ prefetch_bucket_size: 7 }).zero_optimization.stage3_prefetch_bucket_size, 7)
  t.equal(zero({ stage3_max_live_parameters: 3e9 }).zero_optimization.stage3_max_live_parameters, 3e9)
  t.ok(
    zero({ stage3_gather_fp16_weights_on_model_save: true }).hints[0]?.startsWith(
      'zero_optimization.stage3_gather_16bit',
    ),
  )
  const old = zero({ stage: 3, cpu_offload: true, cpu_offload_param: true, cpu_offload_use_pin_memory: true })
  t.equal(old.zero_optimization.offload_optimizer.device, 'cpu')
  t.equal(old.zero_optimization.offload_param.device, 'cpu')
  t.equal(old.hints.length, 3, 'each is said')
  t.equal(zero({ cpu_offload: false }).zero_optimization.offload_optimizer.device, 'none')
  t.equal(read({ bfloat16: { enabled: true } }).bf16.enabled, true)
  t.equal(read({ aio: { thread_count: 4 } }).aio.intra_op_parallelism, 4)
  t.equal(read({ tensor_parallel: { tp: { tp_size: 2 } } }).tensor_parallel.tp.tp_size, 2)
  const both: [object, RegExp][] = [
    [{ zero_optimization: { prefetch_bucket_size: 1, stage3_prefetch_bucket_size: 1 } }, /two names of one key/],
    [{ zero_optimization: { cpu_offload: false, offload_optimizer: {} } }, /cpu_offload and .*offload_optimizer/],
    [{ bf16: {}, bfloat16: {} }, /bf16 and bfloat16 are two names/],
    [{ zero_optimization: { cpu_offload: 'cpu' } }, /cpu_offload is "cpu"; it must be true or false/],
  ]
  for (const [raw, pattern] of both)
    t.match(
      refusal(() => read(raw)),
      pattern,
    )
})

t.test('zero_optimization may be true, sections null, and values null where that is the default', async (t) => {
  t.equal(resolve({ zero_optimization: true }).zero_optimization.stage, 1)
  t.equal(resolve({ zero_optimization: false }).zero_optimization.stage, 0)
  t.equal(resolve({ zero_optimization: { offload_param: null }, fp16: null }).fp16.enabled, false)
  t.equal(resolve({ zero_optimization: { overlap_comm: null } }).zero_optimization.overlap_comm, true)
  t.equal(resolve({ data_types: { grad_accum_dtype: null } }).data_types.grad_accum_dtype, 'fp32')
  t.match(
    refusal(() => resolve({ train: { steps: null } })),
    /train\.steps is null/,
  )
})

t.test('"auto" is the default where DeepSpeed drops it, elsewhere an error', async (t) => {
  const config = resolve({
    zero_optimization: { stage: 'auto', reduce_bucket_size: 'auto', offload_optimizer: { device: 'auto' } },
    fp16: { loss_scale: 'auto', initial_scale_power: 'auto' },
    bf16: { enabled: 'auto' },
    tensorboard: { output_path: 'auto' },
    pipeline: { stages: 'auto' },
  })
  t.equal(config.zero_optimization.stage, 0)
  t.equal(config.zero_optimization.reduce_bucket_size, 5e8)
  t.equal(config.tensorboard.output_path, null)
  t.equal(config.pipeline.stages, null)
  const wrong: [object, RegExp][] = [
    [{ gradient_clipping: 'auto' }, /gradient_clipping is "auto", which a trainer/],
    [{ train_batch_size: 'auto' }, /train_batch_size is "auto"/],
    [{ optimizer: { params: { lr: 'auto' } } }, /optimizer\.params\.lr is "auto".*a number at least 0/],
    [{ zero_optimization: 'auto' }, /zero_optimization is "auto"; it must be an object/],
    [{ activation_checkpointing: { number_checkpoints: 'auto' } }, /"auto"/],
  ]
  for (const [raw, pattern] of wrong)
    t.match(
      refusal(() => resolve(raw)),
      pattern,
    )
})

t.test('what is divided before the sum of gradients: said where it is nothing', async (t) => {
  const dividing = { prescale_gradients: true, gradient_predivide_factor: 2 }
  const told = (more: object) => resolve({ ...micro, ...more }).hints
  const keys = /^prescale_gradients, gradient_predivide_factor: gradients/
  const half = { communication_data_type: 'fp16' }
  t.strictSame(told({ ...dividing, ...half }), [])
  t.strictSame(told({ ...half, gradient_allreduce_op: 'sum' }), [], 'asking for nothing says nothing')
  const [sum, ...more] = told({ ...dividing, ...half, gradient_allreduce_op: 'sum' })
  t.match(sum, keys)
  t.match(sum, /are added \(gradient_allreduce_op "sum"\), where nothing is divided/)
  t.strictSame(more, [])
  t.match(told({ ...dividing, communication_data_type: 'fp32' }), [/travel in f32/])
  t.match(told({ ...dividing, gradient_allreduce_op: 'sum' }), [/are added/], 'one reason is enough')
})

t.test("defaults are DeepSpeed's code defaults, or a difference that the documentation lists", async (t) => {
  const { gradient_clipping, zero_optimization: zero, fp16, flops_profiler, ...rest } = resolve({})
  t.equal(gradient_clipping, 1)
  t.equal(resolve({ gradient_clipping: 0 }).gradient_clipping, 0)
  t.match(zero, { stage: 0, overlap_comm: true, reduce_bucket_size: 5e8, allgather_bucket_size: 5e8 })
  t.match(zero, { stage3_prefetch_bucket_size: 5e7, stage3_param_persistence_threshold: 1e5 })
  t.match(zero.offload_optimizer, { device: 'none', buffer_count: 4, pin_memory: true, ratio: 1 })
  t.match(zero.offload_param, { device: 'none', buffer_count: 5, buffer_size: 1e8, max_in_cpu: 1e9 })
  t.match(fp16, { loss_scale: 0, initial_scale_power: 16, loss_scale_window: 1000, hysteresis: 2, min_loss_scale: 1 })
  t.match(flops_profiler, { profile_step: 1, module_depth: -1, top_modules: 1, detailed: true })
  t.match(rest.aio, { block_size: 2 ** 20, queue_depth: 8, intra_op_parallelism: 1 })
  t.match(rest.tensorboard, { enabled: false, job_name: 'DeepSpeedJobName' })
  t.match(rest.pipeline, { partition: 'parameters', schedule: '1f1b', chunks: 1 })
  t.match(rest.context_parallel, { type: null })
  t.equal(rest.communication_data_type, 'fp32')
  for (const stage of [0, 1, 2, 3] as const)
    t.equal(read({ zero_optimization: { stage } }).zero_optimization.overlap_comm, true, `overlap at stage ${stage}`)
})

t.test('what moves only time or memory is accepted and said once', async (t) => {
  const { hints } = resolve({
    sparse_gradients: true,
    activation_checkpointing: { partition_activations: true, cpu_checkpointing: true, profile: false },
    compile: { deepcompile: true },
    zero_optimization: { stage: 1, contiguous_gradients: true, round_robin_gradients: true },
  })
  t.equal(hints.length, 4)
  t.ok(hints.some((hint) => /^activation_checkpointing\.partition_activations, .*cpu_checkpointing: /.test(hint)))
  t.ok(hints.some((hint) => /^zero_optimization\.round_robin_gradients: /.test(hint)))
})

t.test('elasticity chooses the batch that the most numbers of ranks fit', async (t) => {
  const limits = { max_train_batch_size: 10000, micro_batch_sizes: [8, 12, 16, 17], min_gpus: 32, max_gpus: 1500 }
  const elastic = (more: object, ranks: number, batch: object = {}) =>
    resolve({ elasticity: { enabled: true, version: 0.1, ...limits, ...more } }, ranks, batch)
  const at64 = elastic({}, 64)
  t.strictSame(
    [at64.train_batch_size, at64.train_micro_batch_size_per_gpu, at64.gradient_accumulation_steps],
    [9792, 17, 9],
  )
  const fitting = Array.from({ length: 1500 }, (_, i) => i + 1).filter(
    (n) => refusal(() => elastic({}, n)) === 'accepted',
  )
  t.equal(fitting.length, 23, 'as many as DeepSpeed finds')
  const small = elastic({ max_train_batch_size: 32, micro_batch_sizes: [1, 2, 3, 7], min_gpus: 1 }, 4)
  t.equal(small.train_micro_batch_size_per_gpu, 3)
  t.ok(elastic({ max_train_batch_size: 100, micro_batch_sizes: [8, 10, 12], min_gpus: 1 }, 4).train_batch_size <= 100)
  t.equal(elastic({ version: 0.2 }, 7).train_batch_size % 7, 0, 'version 0.2 takes any number of ranks')
  const wrong: [object, number, object, RegExp][] = [
    [{}, 128, {}, /128 data-parallel ranks do not fit train_batch_size 9792; these do: 32, 34/],
    [{ version: 0.3 }, 64, {}, /version is 0.3; it must be 0.1 or 0.2/],
    [{ model_parallel_size: 4 }, 64, {}, /model_parallel_size/],
    [{ version: 0.2, num_gpus_per_node: 8, model_parallel_size: 16 }, 16, {}, /model_parallel_size/],
    [{ micro_batch_sizes: 5 }, 64, {}, /micro_batch_sizes is 5/],
    [{ micro_batch_sizes: [1, -1] }, 64, {}, /micro_batch_sizes/],
    [{ micro_batch_sizes: [2, 0.5] }, 64, {}, /micro_batch_sizes/],
    [{ micro_batch_sizes: [] }, 64, {}, /empty/],
    [{ micro_batch_sizes: [20000] }, 64, {}, /20000, more than max_train_batch_size/],
    [{ min_gpus: -1 }, 64, {}, /min_gpus/],
    [{ min_gpus: 200, max_gpus: 100 }, 64, {}, /min_gpus 200 is more than max_gpus 100/],
    [{}, 64, micro, /train_micro_batch_size_per_gpu is 2, but elasticity chooses/],
  ]
  for (const [more, ranks, batch, pattern] of wrong)
    t.match(
      refusal(() => elastic(more, ranks, batch)),
      pattern,
    )
  t.equal(elastic({ ignore_non_elastic_batch_info: true }, 64, micro).train_batch_size, 9792)
})

t.test('what the engine does not follow yet is refused or said, and each line names a key of the schema', async (t) => {
  const paths = new Set([...rulesOf(schema)].map(([path]) => path))
  const defaults = resolve({})
  for (const { path, asked } of notYet) {
    t.ok(paths.has(path), path)
    t.notOk(asked(defaults), `${path}: the default asks for nothing`)
  }
})

t.test('docs/config.md is what `npm run docs:config` writes', async (t) => {
  t.equal(readFileSync(docsPath, 'utf8'), configDocs(), 'run npm run docs:config')
})
