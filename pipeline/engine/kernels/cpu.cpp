// A CPU's attention and steps between the matrix products, in float32. Attention reads K/V where they lie in the pool:
// nothing is gathered, padded or masked. A row's bits depend on the row alone: every sum runs in an order that the
// row's own keys, or the model's width, fix, whatever is computed beside it and by however many threads.
//
// Layouts are those of pipeline/engine/ops.py and attention/: rows T, Q query heads, K key/value heads, D head size.
// kernels/cpu.py checks that D is a multiple of 16 and that hidden and intermediate sizes are multiples of 8.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

constexpr int64_t LANES = 8;     // two registers of NEON, one of AVX2
constexpr int64_t BLOCK = 8;     // rows that a thread takes at once: they mostly share a context
constexpr int64_t KEYS = 4;      // keys whose products with a query are summed side by side
constexpr int64_t SMALL = 8192;  // values that one thread handles sooner than several begin

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef float Quad __attribute__((vector_size(16), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(4 * LANES), aligned(4)));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t Picked __attribute__((vector_size(16)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, Picked{i, j, k, l})
#endif

inline Lanes load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
inline void store(float* to, Lanes value) { *reinterpret_cast<Lanes*>(to) = value; }
inline Lanes all(float value) { return value - Lanes{}; }

inline Quad halves(Lanes value) {
  Quad low, high;
  std::memcpy(&low, &value, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
  return low + high;
}

inline float sum(Lanes value) {
  const Quad half = halves(value);
  return (half[0] + half[1]) + (half[2] + half[3]);
}

// The sums of four, side by side.
inline Quad sums(const Lanes* four) {
  const Quad a = halves(four[0]), b = halves(four[1]), c = halves(four[2]), d = halves(four[3]);
  const Quad ab = PICK(a, b, 0, 4, 2, 6) + PICK(a, b, 1, 5, 3, 7);
  const Quad cd = PICK(c, d, 0, 4, 2, 6) + PICK(c, d, 1, 5, 3, 7);
  return PICK(ab, cd, 0, 1, 4, 5) + PICK(ab, cd, 2, 3, 6, 7);
}

// e^x, within 2 units in the last place; 0 below -87.3, where the result would be denormal. x = n ln 2 + r with n whole
// and |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite, "Software Manual for the Elementary Functions", 1980), e^r by
// its series, 2^n by its exponent's bits.
inline Lanes exponential(Lanes x) {
  const Lanes below = all(-87.3f), above = all(88.3f), shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds
  const Lanes held = x < below ? below : x > above ? above : x;
  const Lanes shifted = held * 1.44269504f + shift;
  const Lanes n = shifted - shift;
  const Lanes r = (held - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes series = all(1.0f / 5040);
  for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) series = series * r + factor;
  const Whole bits = (__builtin_convertvector(n, Whole) + 127) << 23;
  Lanes power;
  std::memcpy(&power, &bits, sizeof power);
  return x < below ? Lanes{} : series * power;
}

struct Context {
  const float* layer;    // (slots, 2K, D)
  const int64_t* slots;  // of the row's keys, in order
  int64_t keys, slot_values, head_values;
  const float* key(int64_t at, int64_t head) const { return layer + slots[at] * slot_values + head * head_values; }
};

// scores[h][j] = scale * q[h] . k[j]; rows of `scores` have room for a multiple of LANES.
template <int HEADS>
void score(const float* q, const Context& context, int64_t head, float scale, float* scores, int64_t room) {
  const int64_t width = context.head_values;
  for (int64_t j = 0; j < context.keys; j += KEYS) {
    const float* k[KEYS];
    for (int64_t i = 0; i < KEYS; i++) k[i] = context.key(std::min(j + i, context.keys - 1), head);
    Lanes products[HEADS][KEYS] = {};
    for (int64_t d = 0; d < width; d += LANES)
      for (int64_t i = 0; i < KEYS; i++) {
        const Lanes values = load(k[i] + d);
        for (int h = 0; h < HEADS; h++) products[h][i] += load(q + h * width + d) * values;
      }
    for (int h = 0; h < HEADS; h++) {
      const Quad found = sums(products[h]) * scale;
      std::memcpy(scores + h * room + j, &found, sizeof found);
    }
  }
}

// The scores of a head become weights e^(score - largest); returns their sum.
float weigh(float* scores, int64_t keys) {
  const int64_t end = (keys + LANES - 1) / LANES * LANES;
  std::fill(scores + keys, scores + end, -std::numeric_limits<float>::infinity());
  Lanes largest = load(scores);
  for (int64_t j = LANES; j < end; j += LANES) {
    const Lanes next = load(scores + j);
    largest = next > largest ? next : largest;
  }
  float most = largest[0];
  for (int64_t i = 1; i < LANES; i++) most = std::max(most, largest[i]);
  Lanes total{};
  for (int64_t j = 0; j < end; j += LANES) {
    const Lanes weights = exponential(load(scores + j) - most);
    store(scores + j, weights);
    total += weights;
  }
  return sum(total);
}

// out[h] = sum over j of weights[h][j] * v[j] / totals[h], for PARTS * LANES values from d on.
template <int HEADS, int PARTS>
void mix(const float* weights, int64_t room, const float* totals, const Context& context, int64_t head, int64_t d,
         float* out) {
  Lanes mixed[HEADS][PARTS] = {};
  for (int64_t j = 0; j < context.keys; j++) {
    const float* values = context.key(j, head) + d;
    for (int part = 0; part < PARTS; part++) {
      const Lanes value = load(values + part * LANES);
      for (int h = 0; h < HEADS; h++) mixed[h][part] += weights[h * room + j] * value;
    }
  }
  for (int h = 0; h < HEADS; h++)
    for (int part = 0; part < PARTS; part++)
      store(out + h * context.head_values + d + part * LANES, mixed[h][part] / totals[h]);
}

template <int HEADS>
void attend_heads(const float* q, const Context& context, int64_t head, int64_t kv_heads, float scale, float* scores,
                  int64_t room, float* out) {
  float totals[HEADS];
  score<HEADS>(q, context, head, scale, scores, room);
  for (int h = 0; h < HEADS; h++) totals[h] = weigh(scores + h * room, context.keys);
  int64_t d = 0;
  for (; d + 4 * LANES <= context.head_values; d += 4 * LANES)
    mix<HEADS, 4>(scores, room, totals, context, kv_heads + head, d, out);
  for (; d < context.head_values; d += LANES) mix<HEADS, 1>(scores, room, totals, context, kv_heads + head, d, out);
}

}  // namespace

// out (T, Q * D): attention of each row t of qkv (T, Q + 2K, D) over keys[t] keys, whose slots begin at slots[first[t]].
extern "C" void attend(const float* qkv, const float* layer, const int64_t* slots, const int64_t* first,
                       const int64_t* keys, float* out, int64_t rows, int64_t heads, int64_t kv_heads, int64_t width,
                       float scale, int threads) {
  const int64_t group = heads / kv_heads, blocks = (rows + BLOCK - 1) / BLOCK;
  const int64_t most = *std::max_element(keys, keys + rows), room = (most + LANES - 1) / LANES * LANES;
#pragma omp parallel num_threads(threads) if (threads > 1 && rows * most * width > 4 * SMALL)
  {
    std::vector<float> scores(3 * room);
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < blocks * kv_heads; item++) {
      const int64_t begin = item / kv_heads * BLOCK, head = item % kv_heads;
      for (int64_t t = begin; t < std::min(begin + BLOCK, rows); t++) {
        const Context context{layer, slots + first[t], keys[t], 2 * kv_heads * width, width};
        const float* q = qkv + (t * (heads + 2 * kv_heads) + head * group) * width;
        float* to = out + (t * heads + head * group) * width;
        for (int64_t h = 0; h < group;) {
          const int64_t left = group - h, taken = left == 4 ? 2 : std::min<int64_t>(left, 3);
          const auto run = taken == 3 ? attend_heads<3> : taken == 2 ? attend_heads<2> : attend_heads<1>;
          run(q + h * width, context, head, kv_heads, scale, scores.data(), room, to + h * width);
          h += taken;
        }
      }
    }
  }
}

// hidden (T, H) += delta, unless that is null; normed = hidden / sqrt(mean of its squares + eps) * weight.
extern "C" void add_norm(float* hidden, const float* delta, const float* weight, float* normed, int64_t rows,
                         int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > SMALL)
  for (int64_t t = 0; t < rows; t++) {
    float *row = hidden + t * width, *to = normed + t * width;
    Lanes squares{};
    for (int64_t d = 0; d < width; d += LANES) {
      Lanes value = load(row + d);
      if (delta) store(row + d, value += load(delta + t * width + d));
      squares += value * value;
    }
    const float factor = 1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + eps);
    for (int64_t d = 0; d < width; d += LANES) store(to + d, load(row + d) * factor * load(weight + d));
  }
}

// q of qkv (T, Q + 2K, D) is turned in place by its row's cos and sin (T, D); k, turned, and v go to the row's slot of
// layer (slots, 2K, D).
extern "C" void rotate_and_store(float* qkv, const float* cos, const float* sin, const int64_t* slots, float* layer,
                                 int64_t rows, int64_t heads, int64_t kv_heads, int64_t width, int threads) {
  const int64_t half = width / 2, all_heads = heads + 2 * kv_heads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * all_heads * width > SMALL)
  for (int64_t t = 0; t < rows; t++) {
    float* row = qkv + t * all_heads * width;
    float* slot = layer + slots[t] * 2 * kv_heads * width;
    const float *c = cos + t * width, *s = sin + t * width;
    for (int64_t head = 0; head < heads + kv_heads; head++) {
      const float* from = row + head * width;
      float* to = head < heads ? row + head * width : slot + (head - heads) * width;
      for (int64_t d = 0; d < half; d += LANES) {
        const Lanes low = load(from + d), high = load(from + half + d);
        store(to + d, low * load(c + d) - high * load(s + d));
        store(to + half + d, high * load(c + half + d) + low * load(s + half + d));
      }
    }
    std::memcpy(slot + kv_heads * width, row + (heads + kv_heads) * width, 4 * kv_heads * width);
  }
}

// out (T, I) = silu(gate) * up of gate_up (T, 2I).
extern "C" void swiglu(const float* gate_up, float* out, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > SMALL)
  for (int64_t t = 0; t < rows; t++) {
    const float *gate = gate_up + t * 2 * width, *up = gate + width;
    for (int64_t d = 0; d < width; d += LANES) {
      const Lanes x = load(gate + d);
      store(out + t * width + d, load(up + d) * x / (1.0f + exponential(-x)));
    }
  }
}
