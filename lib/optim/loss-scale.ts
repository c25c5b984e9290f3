// The scale of the loss in fp16.

/** What the engine asks of a loss scaler. */
export interface LossScale {
  readonly scale: number
  /** After each step: whether its gradients overflowed. */
  step(overflow: boolean): void
  state(): Record<string, number>
  load(state: Record<string, number>): void
}
