// zeroshard/data: text to tokens, tokens to batches. Public names only.

export {
  checkVocabulary,
  type Dataset,
  type DatasetOptions,
  openDataset,
  prepareDataset,
} from './dataset.js'
export {
  type Batch,
  DataLoader,
  Sampler,
  type SampleWindow,
  samplesPerEpoch,
  sampleWindow,
  ValidationSampler,
} from './sampler.js'
export type { StreamDecoder } from './stream-decoder.js'
export { TokenFile, TokenFileWriter, type TokenView } from './token-file.js'
export type { TokenFileHeader } from './token-header.js'
export { loadTokenizer, type TokenIds, type Tokenizer } from './tokenizers.js'
