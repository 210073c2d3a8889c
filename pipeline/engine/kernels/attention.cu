// Attention of a packed pass over K/V that lie anywhere in the slot pool: nothing is gathered, nothing padded.
//
// The online softmax of FlashAttention-2 (arXiv 2307.08691) on tensor-core tiles, mma.sync m16n8k16, so that it runs on
// every device from compute capability 8.0 on. The query heads that share a K/V head become rows of one tile. A block
// takes ROWS such rows of one segment and one K/V head, 16 a warp, and walks over the segment's context KEYS slots at a
// time: the next keys and values arrive while these are computed with. Causal, bottom-right; each row sees `window`
// tokens at most.
#include "tensor_core.cuh"

constexpr int KEYS = 32, WARPS = 4, ROWS = WARPS * 16, THREADS = WARPS * 32;
constexpr int BLOCKS = 3;  // on a multiprocessor at the same time: what the registers of D = 128 allow

// One tile's work, as `tiles` in attention/paged.py lays it out.
struct Tile {
    int row;      // the segment's first row in the pass
    int queries;  // rows of the segment
    int context;  // where its slots start in `slots`
    int keys;     // how many they are
    int first;    // first of the tile's rows among the segment's queries × group rows
};

template <int D>
__global__ void __launch_bounds__(THREADS, BLOCKS)
attend_kernel(const bf16* __restrict__ q, int q_stride, const bf16* __restrict__ pool, const int* __restrict__ slots,
              const Tile* __restrict__ tiles, bf16* __restrict__ out, int kv_heads, int group, int window, float scale) {
    constexpr int CHUNKS = D / 8;                   // 16-byte pieces of a head
    constexpr int STRIDE = D + 8;                   // of a row in shared memory: an odd number of pieces, so no bank conflicts
    constexpr int LOADS = KEYS * CHUNKS / THREADS;  // pieces of keys, and of values, that a thread fetches at a time
    constexpr int STAGE = 2 * KEYS * STRIDE;        // keys, then values
    extern __shared__ __align__(16) unsigned char shared[];
    bf16* q_tile = reinterpret_cast<bf16*>(shared);
    bf16* stages = q_tile + ROWS * STRIDE;

    const Tile tile = tiles[blockIdx.x];
    const int kv_head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int before = tile.keys - tile.queries;                    // position of the segment's first row
    const int rows = min(ROWS, tile.queries * group - tile.first);  // of this tile
    const int first_key = max(0, before + tile.first / group - window + 1) / KEYS * KEYS;
    const int end_key = before + (tile.first + rows - 1) / group + 1;
    const size_t slot_stride = size_t(2) * kv_heads * D;
    const bf16* kv = pool + size_t(kv_head) * D;
    slots += tile.context;

    // Slots of what this thread fetches of the keys from `key` on; beyond the end the last one, which is masked.
    int slot[LOADS];
    auto look_up = [&](int key) {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) slot[i] = slots[min(key + int(threadIdx.x + i * THREADS) / CHUNKS, tile.keys - 1)];
    };
    auto fetch = [&](bf16* to) {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const int piece = threadIdx.x + i * THREADS;
            const bf16* from = kv + slot[i] * slot_stride + piece % CHUNKS * 8;
            bf16* at = to + piece / CHUNKS * STRIDE + piece % CHUNKS * 8;
            copy_async(at, from);
            copy_async(at + KEYS * STRIDE, from + size_t(kv_heads) * D);
        }
    };

    look_up(first_key);
    for (int piece = threadIdx.x; piece < ROWS * CHUNKS; piece += THREADS) {
        const int row = tile.first + min(piece / CHUNKS, rows - 1);
        copy_async(q_tile + piece / CHUNKS * STRIDE + piece % CHUNKS * 8,
                   q + size_t(tile.row + row / group) * q_stride + (kv_head * group + row % group) * D + piece % CHUNKS * 8);
    }
    fetch(stages);
    look_up(first_key + KEYS);

    // Of this warp; lane / 4 and lane / 4 + 8 are the rows that this thread holds.
    const int from = warp * 16;
    const bool idle = from >= rows;
    const int first_position = before + (tile.first + from) / group;
    const int last_position = before + (tile.first + min(from + 16, rows) - 1) / group;
    float acc[D / 8][4] = {};  // rows × D
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
    int position[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) position[i] = before + (tile.first + min(from + lane / 4 + i * 8, rows - 1)) / group;

    wait();
    __syncthreads();
    uint32_t queries[D / 16][4];
#pragma unroll
    for (int d = 0; d < D / 16; ++d) load_matrices(queries[d], q_tile + (from + lane % 16) * STRIDE + d * 16 + lane / 16 * 8);

    int stage = 0;
    for (int key = first_key; key < end_key; key += KEYS, stage ^= 1) {
        if (key + KEYS < end_key) {
            fetch(stages + (stage ^ 1) * STAGE);
            look_up(key + 2 * KEYS);
        }
        const bool unseen = idle || key > last_position || key + KEYS <= first_position - window + 1;
        if (!unseen) {
            const bf16* k_tile = stages + stage * STAGE;
            const bf16* v_tile = k_tile + KEYS * STRIDE;
            float score[KEYS / 8][4] = {};
#pragma unroll
            for (int d = 0; d < D / 16; ++d)
#pragma unroll
                for (int n = 0; n < KEYS / 16; ++n) {
                    uint32_t b[4];
                    load_matrices(b, k_tile + (n * 16 + lane / 16 * 8 + lane % 8) * STRIDE + d * 16 + lane / 8 % 2 * 8);
                    multiply(score[2 * n], queries[d], b[0], b[1]);
                    multiply(score[2 * n + 1], queries[d], b[2], b[3]);
                }
            // All rows of the warp see all of these keys, or each score is looked at.
            const bool whole = key + KEYS <= first_position + 1 && key > last_position - window;
            if (!whole) {
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int at = key + n * 8 + lane % 4 * 2 + i % 2, own = position[i / 2];
                        if (at > own || at <= own - window) score[n][i] = -INFINITY;
                    }
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float top = most[i];
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n) top = fmaxf(top, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
                const float base = top == -INFINITY ? 0.f : top * scale;  // nothing seen yet: the window starts later
                // Exactly 1 where the maximum stays: most * scale - base would leave what rounding `base` took, and
                // a row would depend on how many blocks its tile walks through that the row does not see.
                const bool higher = top > most[i];
                if (__any_sync(0xffffffffu, higher)) {
                    const float shrink = higher ? exp2f(most[i] * scale - base) : 1.f;
                    sum[i] *= shrink;
#pragma unroll
                    for (int d = 0; d < D / 8; ++d) {
                        acc[d][2 * i] *= shrink;
                        acc[d][2 * i + 1] *= shrink;
                    }
                }
                most[i] = top;
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                    for (int j = 2 * i; j < 2 * i + 2; ++j) {
                        score[n][j] = exp2f(score[n][j] * scale - base);
                        sum[i] += score[n][j];
                    }
            }
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                const uint32_t a[4] = {pair(score[2 * n][0], score[2 * n][1]), pair(score[2 * n][2], score[2 * n][3]),
                                       pair(score[2 * n + 1][0], score[2 * n + 1][1]), pair(score[2 * n + 1][2], score[2 * n + 1][3])};
#pragma unroll
                for (int d = 0; d < D / 16; ++d) {
                    uint32_t b[4];
                    load_matrices_transposed(b, v_tile + (n * 16 + lane % 16) * STRIDE + d * 16 + lane / 16 * 8);
                    multiply(acc[2 * d], a, b[0], b[1]);
                    multiply(acc[2 * d + 1], a, b[2], b[3]);
                }
            }
        }
        wait();
        __syncthreads();  // the next keys are here, and nobody needs these any more
    }
    if (idle) return;

#pragma unroll
    for (int i = 0; i < 2; ++i) {
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
        const float share = 1.f / sum[i];
        // Each warp puts its rows where its queries lay, to write them as whole pieces.
        bf16* row = q_tile + (from + lane / 4 + i * 8) * STRIDE + lane % 4 * 2;
#pragma unroll
        for (int d = 0; d < D / 8; ++d)
            *reinterpret_cast<uint32_t*>(row + d * 8) = pair(acc[d][2 * i] * share, acc[d][2 * i + 1] * share);
    }
    __syncwarp();
    for (int piece = lane; piece < 16 * CHUNKS; piece += 32) {
        const int row = from + piece / CHUNKS;
        if (row >= rows) break;
        const int token = (tile.first + row) / group, head = kv_head * group + (tile.first + row) % group;
        *reinterpret_cast<Piece*>(out + (size_t(tile.row + token) * kv_heads * group + head) * D + piece % CHUNKS * 8) =
            *reinterpret_cast<const Piece*>(q_tile + row * STRIDE + piece % CHUNKS * 8);
    }
}

template <int D>
int launch(const void* q, int q_stride, const void* pool, const void* slots, const void* tiles, void* out, int tile_count,
           int kv_heads, int group, int window, float scale, cudaStream_t stream) {
    constexpr int bytes = (ROWS + 4 * KEYS) * (D + 8) * int(sizeof(bf16));
    const cudaError_t error = cudaFuncSetAttribute(attend_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    attend_kernel<D><<<dim3(tile_count, kv_heads), THREADS, bytes, stream>>>(
        static_cast<const bf16*>(q), q_stride, static_cast<const bf16*>(pool), static_cast<const int*>(slots),
        static_cast<const Tile*>(tiles), static_cast<bf16*>(out), kv_heads, group, window, scale * 1.4426950408889634f);
    return cudaGetLastError();
}

// q (T, …) with `q_stride` values a row; pool (slots, 2K, D) of one layer; out (T, Q·D). window: at least 1.
extern "C" int attend(const void* q, int q_stride, const void* pool, const void* slots, const void* tiles, void* out, int tile_count,
                      int kv_heads, int group, int head_dim, int window, float scale, cudaStream_t stream) {
    switch (head_dim) {
        case 64: return launch<64>(q, q_stride, pool, slots, tiles, out, tile_count, kv_heads, group, window, scale, stream);
        case 96: return launch<96>(q, q_stride, pool, slots, tiles, out, tile_count, kv_heads, group, window, scale, stream);
        case 128: return launch<128>(q, q_stride, pool, slots, tiles, out, tile_count, kv_heads, group, window, scale, stream);
        default: return cudaErrorInvalidValue;
    }
}
