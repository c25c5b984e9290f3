// `zeroshard export`: a Hugging Face folder that transformers' from_pretrained reads.

import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { writeSafetensors } from '../checkpoint/safetensors.js'
import { loadModel } from './load-model.js'

const architectures: Record<string, string> = { gpt2: 'GPT2LMHeadModel', llama: 'LlamaForCausalLM' }

export async function exportModel(path: string, out: string): Promise<void> {
  const { model, tokenizer, source } = await loadModel(path)
  if ((await readdir(out).catch(() => [])).length) {
    throw new ZeroshardError('ARGUMENT', `${out} is not empty; export into a new folder`)
  }
  await mkdir(out, { recursive: true })
  const parameters = model.parameters()
  const plans = parameters.map(({ name, shape }) => ({ key: name, dtype: 'f32' as const, shape }))
  await writeSafetensors(join(out, 'model.safetensors'), plans, async (_, index) => {
    const values = (await (parameters[index] as (typeof parameters)[number]).tensor.data()) as Float32Array
    return new Uint8Array(values.buffer)
  })
  const config = {
    architectures: [architectures[String(model.config.model_type)]],
    torch_dtype: 'float32',
    ...model.config,
  }
  await writeFile(join(out, 'config.json'), `${JSON.stringify(config, null, 2)}\n`)
  for (const [name, content] of Object.entries(tokenizer.files())) await writeFile(join(out, name), content)
  model.dispose()
  process.stdout.write(`${out}: ${parameters.length} tensors of ${source}\n`)
}
