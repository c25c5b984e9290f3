// Which ways to cut a model over some ranks are to be measured: those that the model's sizes and the devices' memory allow.
// Pure: sizes in, list out.

export interface Layout {
  pp: number
  tp: number
  cp: number
  dp: number
  /** Of attention over a cut sequence; empty where it is whole. */
  kind: '' | 'ulysses' | 'ring'
  stage: 0 | 1 | 2 | 3
}

/** What of a model decides where it can be cut, and what it takes. */
export interface ModelSizes {
  parameters: number
  layers: number
  width: number
  heads: number
  keyValueHeads: number
  vocabulary: number
  sequence: number
}

const divides = (part: number, whole: number): boolean => whole % part === 0

/** Every factorisation of the ranks; `simple`: only those with at most two axes. */
export function layoutsOf(ranks: number, model: ModelSizes, simple: boolean): Layout[] {
  const found: Layout[] = []
  const counts = Array.from({ length: ranks }, (_, i) => i + 1).filter((n) => divides(n, ranks))
  for (const pp of counts) {
    for (const tp of counts.filter((n) => divides(n, ranks / pp))) {
      for (const cp of counts.filter((n) => divides(n, ranks / pp / tp))) {
        const dp = ranks / (pp * tp * cp)
        if (simple && [pp, tp, cp, dp].filter((n) => n > 1).length > 2) continue
        if (pp > model.layers || !divides(tp, model.keyValueHeads) || !divides(cp, model.sequence)) continue
        const kinds = (['ulysses', 'ring'] as const).filter(
          (kind) => kind === 'ring' || divides(cp, model.keyValueHeads / tp),
        )
        for (const kind of cp > 1 ? kinds : ['' as const])
          for (const stage of ([0, 1, 2, 3] as const).slice(0, dp * cp > 1 ? 4 : 1))
            found.push({ pp, tp, cp, dp, kind, stage })
      }
    }
  }
  return found
}

/**
 * Bytes of activations of one sample on a rank, in bf16, attention without its matrix in memory (Korthikanti et al. 2022,
 * table 2, with sequence parallelism): 34 a token and channel in each layer, and the logits. A pipeline's first stage has as
 * many samples under way as there are stages, and so as much as one rank alone. A guess: what then does not fit is told.
 */
export function activationBytes(model: ModelSizes, { tp, cp }: Layout): number {
  const tokens = model.sequence / cp
  return (tokens * (34 * model.width * model.layers + 2 * model.vocabulary)) / tp
}

/** Bytes of model states on a rank: 2 of the bf16 parameter, 4 of its gradient, 12 of master and moments. */
export function stateBytes(model: ModelSizes, { pp, tp, dp, cp, stage }: Layout): number {
  const own = model.parameters / (pp * tp)
  const share = (from: number): number => (stage >= from ? dp * cp : 1)
  return own * (2 / share(3) + 4 / share(2) + 12 / share(1))
}

/** The largest power of two of samples at once for which memory is enough; 0: not even one. */
export function microBatchOf(model: ModelSizes, layout: Layout, bytes: number, most = 64): number {
  const left = 0.9 * bytes - stateBytes(model, layout)
  let batch = 1
  while (batch * 2 <= most && batch * 2 * activationBytes(model, layout) <= left) batch *= 2
  return activationBytes(model, layout) <= left ? batch : 0
}

/** "pp 2, dp 4, stage 1"; "one rank" where nothing is cut. */
export function layoutName({ pp, tp, cp, dp, kind, stage }: Layout): string {
  const axes = Object.entries({ pp, tp, cp, dp }).filter(([, n]) => n > 1)
  const words = axes.map(([axis, n]) => `${axis} ${n}${axis === 'cp' ? ` ${kind}` : ''}`)
  if (words.length === 0) return 'one rank'
  return [...words, ...(dp * cp > 1 ? [`stage ${stage}`] : [])].join(', ')
}
