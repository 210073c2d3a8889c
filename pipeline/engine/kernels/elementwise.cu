// The parts of a Phi-3 layer between its matrix products, each in one pass over memory.
//
// Every value is rounded to bfloat16 where transformers' Phi-3 rounds it. All tensors are bfloat16, row-major, their
// rows aligned to 16 bytes. T rows of a pass, H hidden size, Q query heads, K key/value heads, D head size,
// I intermediate size. Each launcher returns the CUDA error of its launch.
#include "device.cuh"

#include <algorithm>

using std::min;

constexpr int NORM_THREADS = 128;  // of a row, if that is enough: few threads with several loads each
constexpr int NORM_PIECES = 8;     // a thread's share of a row at most
constexpr int MOST_THREADS = 512;  // so that a row has at most 32,768 values
constexpr int SWIGLU_THREADS = 256;
constexpr int MOST_GRID_ROWS = 65535;  // CUDA's limit for gridDim.y

// hidden += delta (where there is one); normed = RMS norm of hidden, times weight. One block a row.
__global__ void __launch_bounds__(MOST_THREADS) add_norm_kernel(Piece* __restrict__ hidden, const Piece* __restrict__ delta,
                                                                const Piece* __restrict__ weight, Piece* __restrict__ normed,
                                                                int pieces, float eps) {
    __shared__ float partial[MOST_THREADS / 32];
    const size_t row = size_t(blockIdx.x) * pieces;
    Piece kept[NORM_PIECES], added[NORM_PIECES];
#pragma unroll
    for (int i = 0; i < NORM_PIECES; ++i) {
        const int at = threadIdx.x + i * blockDim.x;
        if (at < pieces) {
            kept[i] = hidden[row + at];
            if (delta != nullptr) added[i] = delta[row + at];
        }
    }
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < NORM_PIECES; ++i) {
        const int at = threadIdx.x + i * blockDim.x;
        if (at < pieces) {
            float x[PIECE];
            unpack(kept[i], x);
            if (delta != nullptr) {
                float add[PIECE];
                unpack(added[i], add);
#pragma unroll
                for (int j = 0; j < PIECE; ++j) x[j] += add[j];
                hidden[row + at] = kept[i] = pack(x);
                unpack(kept[i], x);
            }
#pragma unroll
            for (int j = 0; j < PIECE; ++j) sum += x[j] * x[j];
        }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.f;
    for (int warp = 0; warp < blockDim.x / 32; ++warp) sum += partial[warp];
    const float scale = rsqrtf(sum / (pieces * PIECE) + eps);
#pragma unroll
    for (int i = 0; i < NORM_PIECES; ++i) {
        const int at = threadIdx.x + i * blockDim.x;
        if (at < pieces) {
            float x[PIECE], w[PIECE];
            unpack(kept[i], x);
            unpack(weight[at], w);
#pragma unroll
            for (int j = 0; j < PIECE; ++j) w[j] *= rounded(x[j] * scale);
            normed[row + at] = pack(w);
        }
    }
}

// Turns q (in place) and k (into the pool) by their row's angle, copies v into the pool. One block a row.
__global__ void rotate_and_store_kernel(bf16* __restrict__ qkv, const bf16* __restrict__ cosine, const bf16* __restrict__ sine,
                                        const int64_t* __restrict__ slots, bf16* __restrict__ pool, int heads, int kv_heads,
                                        int head_dim) {
    const int half = head_dim / 2, half_pieces = half / PIECE;
    bf16* row = qkv + size_t(blockIdx.x) * (heads + 2 * kv_heads) * head_dim;
    bf16* stored = pool + slots[blockIdx.x] * 2 * kv_heads * head_dim;
    cosine += size_t(blockIdx.x) * head_dim;
    sine += size_t(blockIdx.x) * head_dim;
    for (int unit = threadIdx.x; unit < (heads + 2 * kv_heads) * half_pieces; unit += blockDim.x) {
        const int head = unit / half_pieces, at = unit % half_pieces * PIECE;
        const bf16* from = row + head * head_dim + at;
        bf16* to = head < heads ? row + head * head_dim + at : stored + (head - heads) * head_dim + at;
        Piece low = *reinterpret_cast<const Piece*>(from), high = *reinterpret_cast<const Piece*>(from + half);
        if (head < heads + kv_heads) {
            float a[PIECE], b[PIECE], c_low[PIECE], c_high[PIECE], s_low[PIECE], s_high[PIECE];
            unpack(low, a);
            unpack(high, b);
            unpack(*reinterpret_cast<const Piece*>(cosine + at), c_low);
            unpack(*reinterpret_cast<const Piece*>(cosine + half + at), c_high);
            unpack(*reinterpret_cast<const Piece*>(sine + at), s_low);
            unpack(*reinterpret_cast<const Piece*>(sine + half + at), s_high);
#pragma unroll
            for (int j = 0; j < PIECE; ++j) {
                const float x = a[j], y = b[j];
                a[j] = rounded(x * c_low[j]) - rounded(y * s_low[j]);
                b[j] = rounded(y * c_high[j]) + rounded(x * s_high[j]);
            }
            low = pack(a);
            high = pack(b);
        }
        *reinterpret_cast<Piece*>(to) = low;
        *reinterpret_cast<Piece*>(to + half) = high;
    }
}

// gate = silu(gate) · up, in the left half of gate_up (T, 2I). One thread a piece; a row is blockIdx.y, since a division
// by the row's length costs more than the rest.
__global__ void swiglu_kernel(Piece* __restrict__ gate_up, int pieces) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= pieces) return;
    Piece* gate = gate_up + size_t(blockIdx.y) * (2 * size_t(pieces)) + at;
    float g[PIECE], u[PIECE];
    unpack(*gate, g);
    unpack(gate[pieces], u);
#pragma unroll
    for (int j = 0; j < PIECE; ++j) u[j] *= rounded(g[j] / (1.f + expf(-g[j])));
    *gate = pack(u);
}

extern "C" {

int add_norm(void* hidden, const void* delta, const void* weight, void* normed, int rows, int width, float eps, cudaStream_t stream) {
    const int pieces = width / PIECE, each = min(NORM_PIECES, (pieces + NORM_THREADS - 1) / NORM_THREADS);
    const int threads = ((pieces + each - 1) / each + 31) / 32 * 32;
    if (threads > MOST_THREADS) return cudaErrorInvalidValue;
    add_norm_kernel<<<rows, threads, 0, stream>>>(static_cast<Piece*>(hidden), static_cast<const Piece*>(delta),
                                                  static_cast<const Piece*>(weight), static_cast<Piece*>(normed), pieces, eps);
    return cudaGetLastError();
}

int rotate_and_store(void* qkv, const void* cosine, const void* sine, const void* slots, void* pool, int rows, int heads,
                     int kv_heads, int head_dim, cudaStream_t stream) {
    rotate_and_store_kernel<<<rows, 256, 0, stream>>>(static_cast<bf16*>(qkv), static_cast<const bf16*>(cosine),
                                                      static_cast<const bf16*>(sine), static_cast<const int64_t*>(slots),
                                                      static_cast<bf16*>(pool), heads, kv_heads, head_dim);
    return cudaGetLastError();
}

int swiglu(void* gate_up, int rows, int intermediate, cudaStream_t stream) {
    const int pieces = intermediate / PIECE;
    for (int first = 0; first < rows; first += MOST_GRID_ROWS) {
        const dim3 grid((pieces + SWIGLU_THREADS - 1) / SWIGLU_THREADS, min(MOST_GRID_ROWS, rows - first));
        swiglu_kernel<<<grid, SWIGLU_THREADS, 0, stream>>>(static_cast<Piece*>(gate_up) + size_t(first) * 2 * pieces, pieces);
    }
    return cudaGetLastError();
}
}
