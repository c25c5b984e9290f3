// The loss scale of fp16 training: halved where gradients overflow, doubled after a long calm. DeepSpeed's rule for
// its ZeRO optimizers, with its keys. Pure: it knows no tensor.

import { ZeroshardError } from '../binding/errors.js'

export interface LossScaleOptions {
  /** 0: dynamic; else the scale, for ever. */
  loss_scale?: number
  /** The first scale is 2 to this power. */
  initial_scale_power?: number
  /** Steps without overflow before the scale doubles. */
  loss_scale_window?: number
  /** Overflows before the scale is halved: the scale waits this often, less one, until it doubled again. */
  hysteresis?: number
  /** True: a step without overflow gives all the patience back. */
  consecutive_hysteresis?: boolean
  min_loss_scale?: number
}

/** For a checkpoint. */
export interface LossScaleState {
  scale: number
  /** Steps seen. */
  steps: number
  /** Index of the last step that overflowed; -1: none. */
  lastOverflow: number
  /** Overflows that are left before the scale is halved, this one included. */
  patience: number
}

const FACTOR = 2

export class LossScaler {
  readonly dynamic: boolean
  readonly #window: number
  readonly #hysteresis: number
  readonly #consecutive: boolean
  readonly #floor: number
  #state: LossScaleState

  /** @throws CONFIG where a value makes no sense */
  constructor(options: LossScaleOptions = {}) {
    const { loss_scale = 0, initial_scale_power = 16, loss_scale_window = 1000 } = options
    const { hysteresis = 2, consecutive_hysteresis = false, min_loss_scale = 1 } = options
    check('loss_scale', loss_scale, loss_scale >= 0, 'at least 0 (0: dynamic)')
    check('initial_scale_power', initial_scale_power, Number.isInteger(initial_scale_power), 'an integer')
    check('loss_scale_window', loss_scale_window, isCount(loss_scale_window), 'an integer, at least 1')
    check('hysteresis', hysteresis, isCount(hysteresis), 'an integer, at least 1')
    check('min_loss_scale', min_loss_scale, min_loss_scale > 0, 'greater than 0')
    this.dynamic = loss_scale === 0
    this.#window = loss_scale_window
    this.#hysteresis = hysteresis
    this.#consecutive = consecutive_hysteresis
    this.#floor = min_loss_scale
    const scale = this.dynamic ? FACTOR ** initial_scale_power : loss_scale
    this.#state = { scale, steps: 0, lastOverflow: -1, patience: hysteresis }
  }

  /** What the loss of the next step is multiplied by. */
  get scale(): number {
    return this.#state.scale
  }

  /**
   * After each step: whether its gradients overflowed, on any rank; `parameter`: whose did first, for the error.
   *
   * @throws NOT_FINITE where they did at the smallest scale
   */
  step(overflow: boolean, parameter?: string): void {
    const { dynamic } = this
    if (dynamic && overflow) this.#overflowed(parameter)
    else if (dynamic) this.#calm()
    this.#state.steps++
  }

  #overflowed(parameter: string | undefined): void {
    const state = this.#state
    if (state.patience > 1) state.patience--
    else if (state.scale === this.#floor) {
      throw new ZeroshardError(
        'NOT_FINITE',
        `gradients${parameter ? ` (of ${parameter} first)` : ''} overflowed at step ${state.steps + 1} with the loss scale at its minimum, ${this.#floor}; lower the learning rate or fp16.min_loss_scale, look for infinities in the data, or train in bf16, which needs no scale`,
      )
    } else state.scale = Math.max(state.scale / FACTOR, this.#floor)
    state.lastOverflow = state.steps
  }

  #calm(): void {
    const state = this.#state
    const stable = state.steps - state.lastOverflow - 1
    const doubles = stable > 0 && stable % this.#window === 0
    if (doubles) state.scale *= FACTOR
    if (doubles || this.#consecutive) state.patience = this.#hysteresis
  }

  state(): LossScaleState {
    return { ...this.#state }
  }

  /** A state of another run; the options stay. A static scale stays too. */
  load(state: LossScaleState): void {
    this.#state = { ...state, ...(!this.dynamic && { scale: this.#state.scale }) }
  }
}

const isCount = (value: number): boolean => Number.isInteger(value) && value >= 1

function check(key: string, value: number, fits: boolean, wanted: string): void {
  if (fits && Number.isFinite(value)) return
  throw new ZeroshardError('CONFIG', `fp16.${key} is ${value}; it must be ${wanted}`)
}
