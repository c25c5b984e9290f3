// Reads hyperparameters of which the configuration has checked type and range; what is left out has its default.

export type Params = Record<string, unknown>

export const numberOf = (params: Params, key: string, fallback: number): number => Number(params[key] ?? fallback)
export const flagOf = (params: Params, key: string, fallback: boolean): boolean => Boolean(params[key] ?? fallback)
export const betasOf = (params: Params, fallback: readonly [number, number]): readonly [number, number] =>
  (params.betas as [number, number] | undefined) ?? fallback

/** What the moments are divided by for their start at zero. */
export const biasOf = (beta: number, update: number, corrected: boolean): number => (corrected ? 1 - beta ** update : 1)
