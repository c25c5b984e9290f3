// How a model is cut over tensor ranks, as data: which layer by its outputs, which by its inputs, which stays whole.
// Plans are there for our models; what one for a user's model looks like can be seen below, or is deduced.

import { nearest, ZeroshardError } from '../binding/errors.js'
import { LanguageModel } from '../nn/models/language-model.js'
import type { Module } from '../nn/module.js'
import { Parameter } from '../nn/parameter.js'

/** How layers of some paths are cut. */
export interface PlanEntry {
  /** Path of a module, or of a parameter of it: `*` is one name, `**` any number, `{a,b}` either; or a RegExp. */
  match: string | RegExp
  /**
   * column: a linear by its outputs. row: a linear by its inputs, which a column layer made. vocabulary: an embedding
   * or a language model's head by its tokens. heads: an attention module, whose head counts are divided. replicate:
   * whole on every rank, as is all that no entry matches.
   */
  as: 'column' | 'row' | 'vocabulary' | 'heads' | 'replicate'
  /** column: the output is so many equal matrices side by side, each of which is cut (q, k, v: 3). Default 1. */
  parts?: number
  /** column, row: cut between heads alone; the name of the attention module's field with their number. */
  heads?: 'numHeads' | 'numKeyValueHeads'
}

/** How the layers of a model are cut. */
export type Plan = readonly PlanEntry[]

/** How GPT-2 is cut over tensor ranks. */
export const gpt2Plan: Plan = [
  { match: 'transformer.wte', as: 'vocabulary' },
  { match: 'transformer.h.*.attn', as: 'heads' },
  { match: 'transformer.h.*.attn.c_attn', as: 'column', parts: 3, heads: 'numHeads' },
  { match: 'transformer.h.*.attn.c_proj', as: 'row', heads: 'numHeads' },
  { match: 'transformer.h.*.mlp.c_fc', as: 'column' },
  { match: 'transformer.h.*.mlp.c_proj', as: 'row' },
  { match: 'lm_head', as: 'vocabulary' },
]

/** How the Llama family is cut over tensor ranks. */
export const llamaPlan: Plan = [
  { match: 'model.embed_tokens', as: 'vocabulary' },
  { match: 'model.layers.*.self_attn', as: 'heads' },
  { match: 'model.layers.*.self_attn.q_proj', as: 'column', heads: 'numHeads' },
  { match: 'model.layers.*.self_attn.{k_proj,v_proj}', as: 'column', heads: 'numKeyValueHeads' },
  { match: 'model.layers.*.self_attn.o_proj', as: 'row', heads: 'numHeads' },
  { match: 'model.layers.*.mlp.{gate_proj,up_proj}', as: 'column' },
  { match: 'model.layers.*.mlp.down_proj', as: 'row' },
  { match: 'lm_head', as: 'vocabulary' },
]

/** By Hugging Face's `model_type`. */
const ready: Record<string, Plan> = { gpt2: gpt2Plan, llama: llamaPlan }

/** The ready plan of one of our models; undefined for a user's. */
export function readyPlan(model: Module): Plan | undefined {
  return model instanceof LanguageModel ? ready[String(model.config.model_type)] : undefined
}

/** A plan's entry for one module. */
export interface Placed {
  path: string
  module: Module
  entry: PlanEntry
}

/** @throws CONFIG where an entry matches nothing, or two match one module. */
export function placePlan(model: Module, plan: Plan): Placed[] {
  const places = placesOf(model)
  const placed = new Map<Module, Placed>()
  for (const entry of plan) {
    const pattern = patternOf(entry.match)
    const found = new Map([...places].flatMap(([path, at]) => (pattern.test(path) ? [[at.module, at]] : [])))
    if (found.size === 0) {
      const near = typeof entry.match === 'string' ? nearest(entry.match, places.keys()) : undefined
      throw new ZeroshardError(
        'CONFIG',
        `plan: '${entry.match}' matches no module and no parameter${near ? `; did you mean '${near}'?` : ''}`,
      )
    }
    for (const { module, path } of found.values()) {
      const before = placed.get(module)
      if (before) {
        throw new ZeroshardError(
          'CONFIG',
          `plan: '${path}' is matched twice, by '${before.entry.match}' (${before.entry.as}) and '${entry.match}' (${entry.as}); keep one`,
        )
      }
      placed.set(module, { path, module, entry })
    }
  }
  return [...placed.values()]
}

/** Modules by their path and by those of their parameters. */
function placesOf(model: Module): Map<string, { path: string; module: Module }> {
  const places = new Map<string, { path: string; module: Module }>()
  model.visit((module) => {
    const at = { path: module.path, module }
    if (module !== model) places.set(module.path, at)
    for (const [name, value] of Object.entries(module))
      if (value instanceof Parameter) places.set(module.path ? `${module.path}.${name}` : name, at)
  })
  return places
}

/** A path's pattern: see PlanEntry.match. */
export function patternOf(match: string | RegExp): RegExp {
  if (match instanceof RegExp) return match
  const source = match.replace(/\*\*|\*|\{[^}]*\}|[^*{}]+/g, (token) => {
    if (token === '**') return '.*'
    if (token === '*') return '[^.]*'
    if (!token.startsWith('{')) return literal(token)
    return `(?:${token.slice(1, -1).split(',').map(literal).join('|')})`
  })
  return new RegExp(`^${source}$`)
}

const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
