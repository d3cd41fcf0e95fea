// The random numbers of core/randomness.py, so that a seed gives here what it gives in Python.
"use strict";

/** SHA-256 of a text, as 32 bytes. FIPS 180-4; Web Crypto is missing on pages from plain http. */
function sha256(text) {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const bits = (x) => ((x - Math.floor(x)) * 2 ** 32) >>> 0;
  const k = primes.map((p) => bits(Math.cbrt(p)));
  const h = primes.slice(0, 8).map((p) => bits(Math.sqrt(p)));
  const bytes = [...new TextEncoder().encode(text)];
  const length = bytes.length * 8;
  bytes.push(0x80);
  while (bytes.length % 64 !== 56) bytes.push(0);
  for (let i = 7; i >= 0; i--) bytes.push(Math.floor(length / 2 ** (8 * i)) & 255);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < bytes.length; at += 64) {
    const w = [];
    for (let i = 0; i < 16; i++) w.push((bytes[at + 4 * i] << 24) | (bytes[at + 4 * i + 1] << 16) | (bytes[at + 4 * i + 2] << 8) | bytes[at + 4 * i + 3]);
    for (let i = 16; i < 64; i++) {
      const a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w.push((w[i - 16] + a + w[i - 7] + b) | 0);
    }
    let [a, b, c, d, e, f, g, z] = h;
    for (let i = 0; i < 64; i++) {
      const t1 = (z + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
      const t2 = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [z, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, z].forEach((value, i) => { h[i] = (h[i] + value) >>> 0; });
  }
  return h.flatMap((x) => [x >>> 24, (x >>> 16) & 255, (x >>> 8) & 255, x & 255]);
}

/** core.randomness.seed_of(...parts), a BigInt. */
function seedOf(...parts) {
  return sha256(parts.join("/")).slice(0, 8).reduceRight((seed, byte) => (seed << 8n) | BigInt(byte), 0n) >> 1n;
}

/** core.philox.mixed of a number of 64 bits. */
function mixed(x) {
  x = BigInt.asUintN(64, x);
  x = BigInt.asUintN(64, (x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
  x = BigInt.asUintN(64, (x ^ (x >> 27n)) * 0x94d049bb133111ebn);
  return x ^ (x >> 31n);
}

/** The high 32 bits of the product of two numbers of 32. */
function high(a, b) {
  const [al, ah, bl, bh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = ah * bl + ((al * bl) >>> 16);
  return ah * bh + Math.floor((middle + al * bh) / 65536);
}

/** Philox 4x32-10 (Salmon et al. 2011): `count` uniforms in [0, 1) of a key of 64 bits. */
function philox(key, count) {
  const data = new Float64Array(count);
  const halves = [Number(BigInt.asUintN(32, key)), Number(BigInt.asUintN(32, key >> 32n))];
  for (let place = 0; 4 * place < count; place++) {
    let [a, b, c, d, k, l] = [place, 0, 0, 0, ...halves];
    for (let round = 0; round < 10; round++) {
      const [x, y] = [high(a, 0xd2511f53), high(c, 0xcd9e8d57)];
      [a, b, c, d] = [(y ^ b ^ k) >>> 0, Math.imul(c, 0xcd9e8d57) >>> 0, (x ^ d ^ l) >>> 0, Math.imul(a, 0xd2511f53) >>> 0];
      [k, l] = [(k + 0x9e3779b9) >>> 0, (l + 0xbb67ae85) >>> 0];
    }
    [a, b, c, d].forEach((word, i) => { if (4 * place + i < count) data[4 * place + i] = (word & 0xffffff) / 2 ** 24; });
  }
  return data;
}

/** The inverse of the error function, to 3e-7 of its value (Giles 2010). */
function erfinv(x) {
  const w = -Math.log((1 - x) * (1 + x));
  const [at, terms] = w < 5
    ? [w - 2.5, [2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 2.1858087e-4, -1.25372503e-3, -4.17768164e-3, 0.246640727, 1.50140941]]
    : [Math.sqrt(w) - 3, [-2.00214257e-4, 1.00950558e-4, 1.34934322e-3, -3.67342844e-3, 5.73950773e-3, -7.6224613e-3, 9.43887047e-3, 1.00167406, 2.83297682]];
  return x * terms.reduce((sum, term) => sum * at + term);
}

/** A row of core.randomness.Noise with this key: standard normals, and uniforms in [0, 1), so many as are asked for. */
function noiseOf(key) {
  let asked = 0;
  const next = (count) => philox(mixed(key + seedOf("asked", ++asked)), count);
  return {
    normal: (count) => Float32Array.from(next(count), (u) => Math.SQRT2 * erfinv(2 * u - (1 - 2 ** -24))),
    uniform: (count) => Float32Array.from(next(count)),
  };
}
