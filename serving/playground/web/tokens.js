// Text to tokens and back: characters, or byte-level BPE as the `tokenizers` library has it.
"use strict";

const WORDS = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** encode(text) -> ids and decode(ids) -> text, of config.tokenizer and config.vocabulary. */
function tokenizer(config) {
  const bytes = config.vocabulary.map((token) => Uint8Array.from(token, (c) => c.charCodeAt(0)));
  const decode = (ids) => new TextDecoder().decode(Uint8Array.from(ids.flatMap((id) => [...bytes[id]])));
  const ids = new Map(config.vocabulary.map((token, id) => [token, id]));
  const latin = (text) => String.fromCharCode(...new TextEncoder().encode(text));
  if (!config.merges) {
    return { decode, encode: (text) => [...text].map((character) => {
      const id = ids.get(latin(character));
      if (id === undefined) throw new RangeError(`The model does not know the character “${character}”.`);
      return id;
    }) };
  }
  const ranks = new Map(config.merges.map(([a, b], rank) => [`${a}\u0100${b}`, rank]));
  const word = (text) => {
    let parts = [...latin(text)];
    for (;;) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]}\u0100${parts[i + 1]}`);
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return parts.map((part) => ids.get(part));
      const [a, b] = [parts[at], parts[at + 1]], merged = [];
      for (let i = 0; i < parts.length; i++) {
        if (parts[i] === a && parts[i + 1] === b) { merged.push(a + b); i++; } else merged.push(parts[i]);
      }
      parts = merged;
    }
  };
  return { decode, encode: (text) => (text.match(WORDS) || []).flatMap(word) };
}
